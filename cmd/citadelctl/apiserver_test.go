package main

import (
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"citadel/ca/trust"
)

// serve answers gets and lists of the world's objects as an API server does,
// and returns where, and the roots to know it by.
func (w *world) serve(t *testing.T) (url string, roots []byte) {
	server := httptest.NewTLSServer(w) // credentials travel by TLS only
	t.Cleanup(server.Close)
	return server.URL, trust.MarshalCertificates([]*x509.Certificate{server.Certificate()})
}

// object is what requests choose by.
type object struct {
	meta  metav1.ObjectMeta
	kind  string // of a Secret
	value any
}

func (w *world) objects(resource string) (list []object, kind string) {
	switch resource {
	case "secrets":
		for _, s := range w.secrets {
			s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
			list = append(list, object{s.ObjectMeta, string(s.Type), s})
		}
		return list, "SecretList"
	case "serviceaccounts":
		for _, a := range w.accounts {
			a.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}
			list = append(list, object{a.ObjectMeta, "", a})
		}
		return list, "ServiceAccountList"
	case "namespaces":
		for _, n := range w.namespaces {
			space := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}, TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
			if space.Status.Phase = corev1.NamespaceActive; n == w.terminating {
				space.Status.Phase, space.DeletionTimestamp = corev1.NamespaceTerminating, new(metav1.Now())
			}
			list = append(list, object{space.ObjectMeta, "", space})
		}
		return list, "NamespaceList"
	case "configmaps":
		for _, c := range w.configMaps {
			c.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
			list = append(list, object{c.ObjectMeta, "", c})
		}
		return list, "ConfigMapList"
	case "pods":
		for _, p := range w.pods {
			list = append(list, object{p.ObjectMeta, "", p})
		}
		return list, "PodList"
	case "deployments":
		for _, d := range w.deployments {
			d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
			list = append(list, object{d.ObjectMeta, "", d})
		}
		return list, "DeploymentList"
	case "services":
		for _, s := range w.services {
			s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
			list = append(list, object{s.ObjectMeta, "", s})
		}
		return list, "ServiceList"
	case "leases":
		for _, l := range w.leases {
			l.TypeMeta = metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}
			list = append(list, object{l.ObjectMeta, "", l})
		}
		return list, "LeaseList"
	}
	return nil, ""
}

// ServeHTTP knows /api/v1[/namespaces/NS]/RESOURCE[/NAME], the same below
// /apis/GROUP/VERSION, and what ask answers.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if body, ok := w.ask(r); ok {
		if page, ok := body.(string); ok {
			_, _ = io.WriteString(rw, page) // the client is gone: nobody to tell
			return
		}
		answer(rw, http.StatusOK, body)
		return
	}
	path, group := strings.CutPrefix(r.URL.Path, "/apis/")
	parts := strings.Split(strings.TrimPrefix(path, "/api/v1/"), "/")
	version := "v1"
	if group && len(parts) < 3 { // a group by itself: it has none of ours
		answer(rw, http.StatusNotFound, apierrors.NewNotFound(schema.GroupResource{}, path).Status())
		return
	}
	if group {
		version, parts = strings.Join(parts[:2], "/"), parts[2:]
	}
	namespace := ""
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	resource := schema.GroupResource{Resource: parts[0]}
	name := strings.Join(parts[1:], "/")
	switch r.Header.Get("Authorization") {
	case "Bearer secrets":
		if resource.Resource == "namespaces" || resource.Resource == "subjectaccessreviews" || strings.Contains(name, "/proxy/") {
			answer(rw, http.StatusForbidden, apierrors.NewForbidden(resource, name, errPoor).Status())
			return
		}
	case "Bearer reader":
		if r.Method != http.MethodGet {
			answer(rw, http.StatusForbidden, apierrors.NewForbidden(resource, name, errPoor).Status())
			return
		}
	case "Bearer poor":
		answer(rw, http.StatusForbidden, apierrors.NewForbidden(resource, name, errPoor).Status())
		return
	case "Bearer nobody":
		answer(rw, http.StatusUnauthorized, apierrors.NewUnauthorized("Unauthorized").Status())
		return
	}
	if namespace == "broken" {
		answer(rw, http.StatusInternalServerError, apierrors.NewInternalError(errBroken).Status())
		return
	}
	if r.Method != http.MethodGet {
		w.write(rw, r, namespace, name)
		return
	}
	selector, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil {
		answer(rw, http.StatusBadRequest, apierrors.NewBadRequest(err.Error()).Status())
		return
	}
	byLabel, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		answer(rw, http.StatusBadRequest, apierrors.NewBadRequest(err.Error()).Status())
		return
	}
	all, kind := w.objects(resource.Resource)
	if kind == "" {
		answer(rw, http.StatusNotFound, apierrors.NewNotFound(resource, name).Status())
		return
	}
	items := []any{}
	for _, o := range all {
		set := fields.Set{"metadata.name": o.meta.Name, "type": o.kind}
		if (namespace != "" && o.meta.Namespace != namespace) || (name != "" && o.meta.Name != name) || !selector.Matches(set) || !byLabel.Matches(labels.Set(o.meta.Labels)) {
			continue
		}
		items = append(items, o.value)
	}
	switch {
	case name == "":
		answer(rw, http.StatusOK, map[string]any{"apiVersion": version, "kind": kind, "metadata": struct{}{}, "items": items})
	case len(items) == 0:
		answer(rw, http.StatusNotFound, apierrors.NewNotFound(resource, name).Status())
	default:
		answer(rw, http.StatusOK, items[0])
	}
}

// write makes, replaces and deletes Secrets and ConfigMaps.
func (w *world) write(rw http.ResponseWriter, r *http.Request, namespace, name string) {
	if !slices.Contains(w.namespaces, namespace) {
		answer(rw, http.StatusNotFound, apierrors.NewNotFound(corev1.Resource("namespaces"), namespace).Status())
		return
	}
	switch body := decode(r).(type) {
	case *corev1.Secret:
		body.Namespace = namespace
		w.secrets = append(w.secrets, *body)
		answer(rw, http.StatusCreated, body)
	case *corev1.ConfigMap:
		body.Namespace = namespace
		w.configMaps = slices.DeleteFunc(w.configMaps, func(c corev1.ConfigMap) bool { return c.Namespace == namespace && c.Name == body.Name })
		w.configMaps = append(w.configMaps, *body)
		answer(rw, http.StatusOK, body)
	default: // of a Secret's deletion
		before := len(w.secrets)
		w.secrets = slices.DeleteFunc(w.secrets, func(s corev1.Secret) bool { return s.Namespace == namespace && s.Name == name })
		if len(w.secrets) == before {
			answer(rw, http.StatusNotFound, apierrors.NewNotFound(corev1.Resource("secrets"), name).Status())
			return
		}
		answer(rw, http.StatusOK, metav1.Status{Status: metav1.StatusSuccess})
	}
}

type text string

func (t text) Error() string { return string(t) }

const (
	errPoor   = text(`User "poor" may not do this`)
	errBroken = text("etcd is gone")
)

func answer(rw http.ResponseWriter, code int, body any) {
	if status, ok := body.(metav1.Status); ok {
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		body = status
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(body) // the client is gone: nobody to tell
}
