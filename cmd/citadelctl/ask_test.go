package main

import (
	"io"
	"net/http"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"
)

// ask answers what is no object: the version, reviews of rights, and pages of
// pods.
func (w *world) ask(r *http.Request) (any, bool) {
	who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if who == "nobody" {
		return nil, false
	}
	switch {
	case r.URL.Path == "/version":
		return version.Info{Major: "1", Minor: w.minor, GitVersion: "v1." + w.minor + ".2"}, true
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		review := authorizationv1.SelfSubjectAccessReview{}
		decode(r, &review)
		review.TypeMeta = metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"}
		review.Status.Allowed = who == "admin"
		return review, true
	case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews") && who == "admin":
		review := authorizationv1.SubjectAccessReview{}
		decode(r, &review)
		review.TypeMeta = metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"}
		review.Status.Allowed = !slices.Contains(w.withheld, review.Spec.ResourceAttributes.Verb+" "+review.Spec.ResourceAttributes.Resource)
		return review, true
	case strings.Contains(r.URL.Path, "/proxy/") && who == "admin":
		pod, page, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/istio-system/pods/http:"), "/proxy/")
		text, ok := w.pages[pod+" "+page]
		return text, ok
	}
	return nil, false
}

// decode reads an object in whichever encoding the client chose. What cannot be
// read is left as it is, and not allowed.
func decode(r *http.Request, into runtime.Object) {
	if text, err := io.ReadAll(r.Body); err == nil {
		_ = runtime.DecodeInto(scheme.Codecs.UniversalDeserializer(), text, into)
	}
}
