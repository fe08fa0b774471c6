package main

import (
	"io"
	"net/http"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
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
		review, ok := decode(r).(*authorizationv1.SelfSubjectAccessReview)
		if ok {
			review.TypeMeta = metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"}
			review.Status.Allowed = who == "admin" || who == "reader" && review.Spec.ResourceAttributes.Verb == "get"
		}
		return review, ok
	case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews") && who == "admin":
		review, ok := decode(r).(*authorizationv1.SubjectAccessReview)
		if ok {
			review.TypeMeta = metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"}
			review.Status.Allowed = !slices.Contains(w.withheld, review.Spec.ResourceAttributes.Verb+" "+review.Spec.ResourceAttributes.Resource)
		}
		return review, ok
	case strings.Contains(r.URL.Path, "/proxy/") && who == "admin":
		pod, page, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/istio-system/pods/http:"), "/proxy/")
		w.pods = slices.DeleteFunc(w.pods, func(p corev1.Pod) bool { return p.Name == w.fleeting && strings.HasPrefix(pod, p.Name+":") })
		text, ok := w.pages[pod+" "+page]
		return text, ok
	}
	return nil, false
}

// decode reads the object of a request, in whichever encoding the client chose;
// nil is one that cannot be read.
func decode(r *http.Request) runtime.Object {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return nil
	}
	return object
}
