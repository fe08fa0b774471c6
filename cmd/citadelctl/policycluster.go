package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

// The ConfigMap that holds the mesh config, and the key in it.
const (
	meshConfigMap = "istio"
	meshConfigKey = "mesh"
)

// customKind is a kind of Istio's, which a cluster may have or not.
type customKind struct {
	kind, group, resource string
	versions              []string // those that are read, the newest first
}

var networkingVersions = []string{"v1", "v1beta1", "v1alpha3"}

var customKinds = []customKind{
	{"ServiceEntry", "networking.istio.io", "serviceentries", networkingVersions},
	{"WorkloadEntry", "networking.istio.io", "workloadentries", networkingVersions},
	{"DestinationRule", "networking.istio.io", "destinationrules", networkingVersions},
	{"PeerAuthentication", "security.istio.io", "peerauthentications", []string{"v1", "v1beta1"}},
	{"MeshPolicy", "authentication.istio.io", "meshpolicies", []string{"v1alpha1"}},
	{"Policy", "authentication.istio.io", "policies", []string{"v1alpha1"}},
}

// mesh reads all that decides about mTLS in a cluster. What may not be read, or
// cannot be understood, is noted; a cluster that does not answer is an error.
func (c *cluster) mesh(cmd *cobra.Command, storage string, g policy.Generation) (*meshWorld, error) {
	r := &meshReader{cluster: c}
	tasks, ctx := errgroup.WithContext(cmd.Context())
	tasks.Go(func() error { return r.config(ctx, storage) })
	tasks.Go(func() error {
		return listAll(ctx, r, "Namespace", "namespaces", c.client.CoreV1().Namespaces().List, asNamespace)
	})
	tasks.Go(func() error {
		return listAll(ctx, r, "Service", "services", c.client.CoreV1().Services("").List, asService)
	})
	tasks.Go(func() error { return listAll(ctx, r, "Pod", "pods", c.client.CoreV1().Pods("").List, asPod) })
	for _, kind := range customKinds {
		tasks.Go(func() error { return r.custom(ctx, kind) })
	}
	if err := tasks.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(r.unread, func(a, b unreadKind) int { return strings.Compare(a.Kind, b.Kind) })
	return &meshWorld{mesh.NewWorld(g, r.objects), r.unread, c.clock.now()}, nil
}

// meshReader gathers objects of several requests.
type meshReader struct {
	*cluster
	mu      sync.Mutex // guards the rest
	objects []policy.Object
	unread  []unreadKind
}

func (r *meshReader) add(objects ...policy.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objects = append(r.objects, objects...)
}

// miss notes what may not be read; other errors are returned.
func (r *meshReader) miss(kind string, err error, a access) error {
	err = r.explain(err, a)
	if coded, ok := errors.AsType[codedError](err); ok && coded.code == exitDenied && apierrors.IsForbidden(err) {
		r.note(unreadKind{Kind: kind, Why: err.Error(), denied: true})
		return nil
	}
	return err
}

func (r *meshReader) note(u unreadKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unread = append(r.unread, u)
}

// config reads the mesh config. None is one of defaults.
func (r *meshReader) config(ctx context.Context, namespace string) error {
	cm, err := r.client.CoreV1().ConfigMaps(namespace).Get(ctx, meshConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return r.miss("MeshConfig", err, access{verb: "get", resource: "configmaps", namespace: namespace, name: meshConfigMap})
	}
	config, err := policy.DecodeMeshConfig(fmt.Sprintf("ConfigMap %s/%s", namespace, meshConfigMap), []byte(cm.Data[meshConfigKey]))
	if err != nil {
		r.note(unreadKind{Kind: "MeshConfig", Why: err.Error()})
		return nil
	}
	r.add(config)
	return nil
}

// pageSize is how many objects one answer holds.
const pageSize = 500

// listAll lists objects of Kubernetes' own in pages.
func listAll[L metav1.ListInterface](ctx context.Context, r *meshReader, kind, resource string, list func(context.Context, metav1.ListOptions) (L, error), each func(L) []policy.Object) error {
	for o := (metav1.ListOptions{Limit: pageSize}); ; {
		page, err := list(ctx, o)
		if err != nil {
			return r.miss(kind, err, access{verb: "list", resource: resource})
		}
		r.add(each(page)...)
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return nil
		}
	}
}

// custom lists objects of a kind that the cluster may not have, in the newest
// version that it serves.
func (r *meshReader) custom(ctx context.Context, k customKind) error {
	for _, version := range k.versions {
		served, err := r.customVersion(ctx, k, version)
		if served || err != nil {
			return err
		}
	}
	return nil
}

func (r *meshReader) customVersion(ctx context.Context, k customKind, version string) (served bool, err error) {
	for next := ""; ; {
		text, err := r.raw(ctx, fmt.Sprintf("/apis/%s/%s/%s", k.group, version, k.resource), next)
		switch {
		case apierrors.IsNotFound(err):
			return false, nil
		case apierrors.IsForbidden(err) && r.absent(ctx, k.group):
			return true, nil
		case err != nil:
			return true, r.miss(k.kind, err, access{verb: "list", resource: k.resource + "." + k.group})
		}
		var page struct {
			Metadata struct{ Continue string }
			Items    []json.RawMessage
		}
		if err := json.Unmarshal(text, &page); err != nil {
			return true, fmt.Errorf("read the list of %s objects: %w", k.kind, err)
		}
		for _, item := range page.Items {
			r.item(k, item)
		}
		if next = page.Metadata.Continue; next == "" {
			return true, nil
		}
	}
}

// raw asks for JSON, for whose kind there is no client.
func (r *meshReader) raw(ctx context.Context, path, next string) ([]byte, error) {
	request := r.client.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", runtime.ContentTypeJSON)
	if request = request.Param("limit", strconv.Itoa(pageSize)); next != "" {
		request = request.Param("continue", next)
	}
	return request.DoRaw(ctx)
}

// absent tells whether the cluster does not know a group at all: who may not
// list is refused before that is said.
func (r *meshReader) absent(ctx context.Context, group string) bool {
	_, err := r.raw(ctx, "/apis/"+group, "")
	return apierrors.IsNotFound(err)
}

// item reads one object. One that is not understood is noted: the mesh may heed
// it all the same.
func (r *meshReader) item(k customKind, text json.RawMessage) {
	objects, err := policy.Decode("", text)
	if err != nil {
		var named struct {
			Metadata struct{ Namespace, Name string }
		}
		_ = json.Unmarshal(text, &named) // for the name only
		r.note(unreadKind{Kind: path.Join(k.kind, named.Metadata.Namespace, named.Metadata.Name), Why: err.Error()})
		return
	}
	r.add(objects...)
}

func asMeta(m *metav1.ObjectMeta) policy.Meta {
	return policy.Meta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations, Created: m.CreationTimestamp.UTC()}
}

func asNamespace(list *corev1.NamespaceList) (all []policy.Object) {
	for i := range list.Items {
		all = append(all, &policy.Namespace{Meta: asMeta(&list.Items[i].ObjectMeta)})
	}
	return all
}

func asService(list *corev1.ServiceList) (all []policy.Object) {
	for i := range list.Items {
		from := &list.Items[i]
		s := &policy.Service{Meta: asMeta(&from.ObjectMeta), Spec: policy.ServiceSpec{Type: string(from.Spec.Type), ClusterIP: from.Spec.ClusterIP, Selector: from.Spec.Selector}}
		for _, p := range from.Spec.Ports {
			port := policy.ServicePort{Name: p.Name, Port: p.Port, TargetPort: policy.TargetPort{Name: p.TargetPort.StrVal, Number: p.TargetPort.IntVal}}
			if p.AppProtocol != nil {
				port.AppProtocol = *p.AppProtocol
			}
			s.Spec.Ports = append(s.Spec.Ports, port)
		}
		all = append(all, s)
	}
	return all
}

// asPod leaves out Pods that have ended: they are no endpoints and call nobody.
func asPod(list *corev1.PodList) (all []policy.Object) {
	containers := func(from []corev1.Container) (all []policy.Container) {
		for _, c := range from {
			to := policy.Container{Name: c.Name}
			for _, p := range c.Ports {
				to.Ports = append(to.Ports, policy.ContainerPort{Name: p.Name, Number: p.ContainerPort})
			}
			all = append(all, to)
		}
		return all
	}
	for i := range list.Items {
		from := &list.Items[i]
		if from.Status.Phase == corev1.PodSucceeded || from.Status.Phase == corev1.PodFailed {
			continue
		}
		all = append(all, &policy.Pod{Meta: asMeta(&from.ObjectMeta), Spec: policy.PodSpec{ServiceAccountName: from.Spec.ServiceAccountName,
			Containers: containers(from.Spec.Containers), InitContainers: containers(from.Spec.InitContainers)}})
	}
	return all
}
