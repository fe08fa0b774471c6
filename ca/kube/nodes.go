package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unique"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"citadel/ca"
	"citadel/ca/authn"
)

// Nodes knows which service accounts run on which node, and so what the proxy
// of a node may ask for on behalf of its pods.
type Nodes struct {
	trustDomain spiffeid.TrustDomain
	trusted     map[types.NamespacedName]bool // service accounts of node proxies; not changed
	pods        cache.SharedIndexInformer
	trouble     atomic.Pointer[error] // why the pods could not be read last
}

// NewNodes returns what judges the requests of node proxies, which run as the
// trusted service accounts, NAMESPACE/NAME each. Run has to run.
func NewNodes(client kubernetes.Interface, td spiffeid.TrustDomain, trusted []string) (*Nodes, error) {
	n := &Nodes{trustDomain: td, trusted: map[types.NamespacedName]bool{}}
	var errs []error
	for _, entry := range trusted {
		namespace, name, ok := strings.Cut(entry, "/")
		if _, err := ca.ServiceAccountID(td, namespace, name); err != nil || !ok {
			errs = append(errs, fmt.Errorf("trusted node account %q is not of the form NAMESPACE/SERVICEACCOUNT", entry))
		}
		n.trusted[types.NamespacedName{Namespace: namespace, Name: name}] = true
	}
	if len(trusted) == 0 {
		errs = append(errs, errors.New("there are no trusted node accounts"))
	}
	n.pods = coreinformers.NewPodInformer(client, metav1.NamespaceAll, 0, cache.Indexers{byNode: nodeOf})
	errs = append(errs, n.pods.SetTransform(stripPod), n.pods.SetWatchErrorHandler(func(_ *cache.Reflector, err error) { n.trouble.Store(&err) }))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n, nil
}

// Run reads and watches the cluster's pods until ctx ends.
func (n *Nodes) Run(ctx context.Context) { n.pods.RunWithContext(ctx) }

// MayImpersonate is nil when the caller is the proxy of a node where the
// wanted service account runs: its own service account is trusted, its token
// is bound to a pod that exists with that UID and service account, and on the
// same node there is a pod of the wanted one that has not ended. Until the
// pods are known, its error is a *authn.Unavailable.
func (n *Nodes) MayImpersonate(_ context.Context, caller authn.Identity, wanted spiffeid.ID) error {
	proxy := caller.Pod
	if !n.trusted[types.NamespacedName{Namespace: proxy.Namespace, Name: proxy.ServiceAccount}] {
		return deny("%s is not trusted to ask for others, or has no token that is bound to a pod", caller.Caller.ID())
	}
	account, ok := n.account(wanted)
	if !ok {
		return deny("%s is no service account of trust domain %s", wanted, n.trustDomain)
	}
	if !n.pods.HasSynced() {
		return &authn.Unavailable{Err: n.unknown()}
	}
	obj, exists, err := n.pods.GetIndexer().GetByKey(proxy.Namespace + "/" + proxy.Name)
	own, isPod := obj.(*pod)
	switch {
	case err != nil || !exists || !isPod || string(own.UID) != proxy.UID || own.account != proxy.ServiceAccount:
		return deny("pod %s/%s does not exist with the UID and service account of the token", proxy.Namespace, proxy.Name)
	case own.ended || own.node == "":
		return deny("pod %s/%s does not run on a node", proxy.Namespace, proxy.Name)
	case !n.runs(account, own.node):
		return deny("no pod of service account %s runs on node %s, where pod %s/%s does", account, own.node, proxy.Namespace, proxy.Name)
	}
	return nil
}

func deny(format string, args ...any) error {
	return &ca.Error{Class: ca.Denied, Reason: fmt.Sprintf(format, args...)}
}

// unknown says why the pods are not known.
func (n *Nodes) unknown() error {
	if trouble := n.trouble.Load(); trouble != nil {
		return fmt.Errorf("the cluster's pods could not be read: %w", *trouble)
	}
	return errors.New("the cluster's pods have not been read yet")
}

// account is the service account of an identity.
func (n *Nodes) account(id spiffeid.ID) (types.NamespacedName, bool) {
	parts := strings.Split(id.Path(), "/") // "", ns, NAMESPACE, sa, NAME
	if len(parts) != 5 {
		return types.NamespacedName{}, false
	}
	same, err := ca.ServiceAccountID(n.trustDomain, parts[2], parts[4])
	return types.NamespacedName{Namespace: parts[2], Name: parts[4]}, err == nil && same == id
}

func (n *Nodes) runs(account types.NamespacedName, node string) bool {
	pods, err := n.pods.GetIndexer().ByIndex(byNode, node)
	if err != nil {
		return false
	}
	for _, obj := range pods {
		if p, ok := obj.(*pod); ok && p.Namespace == account.Namespace && p.account == account.Name {
			return true
		}
	}
	return false
}

// pod is what is kept of a pod: there may be a hundred thousand.
type pod struct {
	metav1.ObjectMeta // Name, Namespace, UID and ResourceVersion alone
	node, account     string
	ended             bool
}

// stripPod runs on objects that nobody else holds yet. Names that many pods
// share are kept once.
func stripPod(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	return &pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: shared(p.Namespace), UID: p.UID, ResourceVersion: p.ResourceVersion},
		node:       shared(p.Spec.NodeName),
		account:    shared(p.Spec.ServiceAccountName),
		ended:      p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded,
	}, nil
}

func shared(s string) string { return unique.Make(s).Value() }

// byNode is the index of the pods that have not ended by their node.
const byNode = "node"

func nodeOf(obj any) ([]string, error) {
	p, ok := obj.(*pod)
	if !ok || p.node == "" || p.ended {
		return nil, nil
	}
	return []string{p.node}, nil
}
