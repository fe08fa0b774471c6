package caserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/catest"
	"citadel/ca/policy"
	"citadel/ca/policyfeed"
	citadelv1 "citadel/proto/citadel/v1"
)

// policyRig is a server of policy.
type policyRig struct {
	*rig
	feed *policyfeed.Feed
}

func newPolicyRig(t *testing.T, edits ...func(*Settings)) *policyRig {
	t.Helper()
	feed := policyfeed.New(policy.V1)
	edits = append([]func(*Settings){func(s *Settings) {
		s.Limits.PerCaller = math.MaxFloat64
		s.Policy = &PolicySettings{Feed: feed, Recheck: 50 * time.Millisecond, Readers: []spiffeid.ID{spiffeid.RequireFromString("spiffe://cluster.local/ns/ops/sa/reader")},
			Authenticators: authn.Chain{authn.ClientCertificate{}, words{"host": func() (authn.Identity, error) {
				return authn.Identity{Caller: ca.NewCaller(spiffeid.RequireFromString("spiffe://cluster.local/host/x"), "word", "")}, nil
			}, "panic": func() (authn.Identity, error) { panic("at the word") }}}}
	}}, edits...)
	return &policyRig{newRig(t, edits...), feed}
}

func (r *policyRig) as(namespace, account string) citadelv1.PolicyServiceClient {
	r.t.Helper()
	leaf := r.issuer.Leaf(r.t, time.Now(), spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString("cluster.local"), "/ns/"+namespace+"/sa/"+account))
	return citadelv1.NewPolicyServiceClient(r.dial(leaf))
}

// service is one of a namespace, exported to all, or to itself.
func service(namespace, name string, private bool) *policy.Service {
	s := &policy.Service{Meta: policy.Meta{Name: name, Namespace: namespace}, Spec: policy.ServiceSpec{Ports: []policy.ServicePort{{Name: "http", Port: 80}}}}
	if private {
		s.Annotations = map[string]string{"networking.istio.io/exportTo": "."}
	}
	return s
}

// watcher holds what a watch sent, as an agent would.
type watcher struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[citadelv1.WatchPolicyResponse]
	held   map[policy.Ref]*policyfeed.Item
	last   *citadelv1.WatchPolicyResponse
}

func (r *policyRig) watch(c citadelv1.PolicyServiceClient, held map[policy.Ref]*policyfeed.Item) *watcher {
	r.t.Helper()
	req := &citadelv1.WatchPolicyRequest{}
	if held == nil {
		held = map[policy.Ref]*policyfeed.Item{}
	} else {
		var items []*policyfeed.Item
		for _, item := range held {
			items = append(items, item)
		}
		req.Digests, req.Generation = policyfeed.Digests(items), "v1"
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.t.Cleanup(cancel)
	stream, err := c.WatchPolicy(ctx, req)
	if err != nil {
		r.t.Fatal(err)
	}
	return &watcher{r.t, stream, held, nil}
}

// update receives one, and returns how many objects were sent.
func (w *watcher) update() (objects int) {
	w.t.Helper()
	fresh := map[policy.Ref]*policyfeed.Item{}
	snapshot, replaced := false, map[uint32]bool{}
	for {
		part, err := w.stream.Recv()
		if err != nil {
			w.t.Fatal(err)
		}
		objects += len(part.Objects)
		items, err := policyfeed.ParseItems(part.Objects)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, item := range items {
			fresh[item.Object.Ref()] = item
		}
		for _, name := range part.Removed {
			kind, err := policy.ParseKind(name.Kind)
			if err != nil {
				w.t.Fatal(err)
			}
			delete(w.held, policy.Ref{Kind: kind, Namespace: name.Namespace, Name: name.Name})
		}
		snapshot = snapshot || part.Snapshot
		for _, b := range part.ReplacedBuckets {
			replaced[b] = true
		}
		if part.Complete {
			w.last = part
			break
		}
	}
	for ref := range w.held {
		if snapshot || replaced[policyfeed.Bucket(ref)] {
			delete(w.held, ref)
		}
	}
	for ref, item := range fresh {
		w.held[ref] = item
	}
	return objects
}

func (w *watcher) names() string {
	var all []string
	for ref := range w.held {
		all = append(all, ref.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestWatchPolicy: all at once, then what changes; nobody sees what is private
// to others; and who comes back is sent the difference.
func TestWatchPolicy(t *testing.T) {
	r := newPolicyRig(t)
	a, b := r.as("a", "web"), r.as("b", "web")
	early := r.watch(a, nil)
	r.feed.Apply(policyfeed.Change{Known: true, Put: []policy.Object{service("a", "own", true), service("b", "own", true), service("b", "open", false)}})
	early.update()
	later := r.watch(b, nil)
	later.update()
	if got := early.names(); got != "Service/a/own Service/b/open" {
		t.Errorf("a sees %s", got)
	}
	if got := later.names(); got != "Service/b/open Service/b/own" {
		t.Errorf("b sees %s", got)
	}
	if early.last.Version != r.feed.State().Version || early.last.Generation != "v1" {
		t.Errorf("%v", early.last)
	}
	// What b alone sees changes, then what both see: a's next update is the second.
	r.feed.Apply(policyfeed.Change{Put: []policy.Object{service("b", "more", true)}})
	if n := later.update(); n != 1 {
		t.Errorf("%d objects for one that came", n)
	}
	r.feed.Apply(policyfeed.Change{Gone: []policy.Ref{service("b", "open", false).Ref()}})
	if n := early.update(); n != 0 || early.names() != "Service/a/own" {
		t.Errorf("%d objects for one that went: %s", n, early.names())
	}
	if n := later.update(); n != 0 || later.names() != "Service/b/more Service/b/own" {
		t.Errorf("%d objects for one that went: %s", n, later.names())
	}
}

// TestWatchTellsWhatIsUnread: that citadel does not hear of a kind is told though
// no object changes, by name alone, and so is the end of it.
func TestWatchTellsWhatIsUnread(t *testing.T) {
	r := newPolicyRig(t)
	r.feed.Apply(policyfeed.Change{Known: true, Put: []policy.Object{service("a", "own", true)}})
	w := r.watch(r.as("a", "web"), nil)
	w.update()
	for _, unread := range [][]policyfeed.Unread{{{What: "Pod", Old: true, Why: "https://10.0.0.1 says no"}}, nil} {
		r.feed.Apply(policyfeed.Change{Unread: unread})
		if n := w.update(); n != 0 || len(w.last.Unread) != len(unread) || len(unread) > 0 && w.last.Unread[0] != "Pod" || w.names() != "Service/a/own" {
			t.Errorf("%v: %d objects, %v", unread, n, w.last)
		}
	}
	r.feed.Apply(policyfeed.Change{Unread: []policyfeed.Unread{{What: "Pod"}}})
	if again := r.watch(r.as("a", "web"), w.held); again.update() != 0 || len(again.last.Unread) != 1 {
		t.Errorf("who comes back is not told: %v", again.last)
	}
}

// TestResume: whatever happened in between, who comes back with what it holds has
// what there is, and is sent little for a little.
func TestResume(t *testing.T) {
	r := newPolicyRig(t)
	var objects []policy.Object
	for i := range 5000 {
		objects = append(objects, service("a", fmt.Sprint("s", i), false))
	}
	r.feed.Apply(policyfeed.Change{Known: true, Put: objects})
	c := r.as("a", "web")
	first := r.watch(c, nil)
	if n := first.update(); n != 5000 {
		t.Fatalf("%d objects at first", n)
	}
	again := r.watch(c, first.held)
	if n := again.update(); n != 0 || again.last.Version == "" {
		t.Errorf("%d objects for nothing new: %v", n, again.last)
	}
	r.feed.Apply(policyfeed.Change{Put: []policy.Object{service("a", "s7", true), service("a", "new", false)}, Gone: []policy.Ref{service("a", "s8", false).Ref()}})
	again = r.watch(c, again.held)
	if n := again.update(); n > 50 || len(again.held) != 5000 {
		t.Errorf("%d objects sent, %d held", n, len(again.held))
	}
	for _, item := range r.feed.View("a").Items() {
		if got := again.held[item.Object.Ref()]; got == nil || string(got.Text()) != string(item.Text()) {
			t.Errorf("%s is not held as it is", item.Object.Ref())
		}
	}
	// Another replica, which counts otherwise, and whose rules are others.
	other := newPolicyRig(t)
	other.feed.Apply(policyfeed.Change{Known: true, Put: r.feed.State().Objects()})
	moved := other.watch(other.as("a", "web"), again.held)
	if n := moved.update(); n != 0 {
		t.Errorf("another replica sent %d objects", n)
	}
}

// TestGenerationChanges: everything is sent, for who hears nothing of what others
// have cannot know whose rules answer.
func TestGenerationChanges(t *testing.T) {
	auto := policyfeed.New(policy.Auto)
	r := newPolicyRig(t, func(s *Settings) { s.Policy.Feed = auto })
	auto.Apply(policyfeed.Change{Known: true, Put: []policy.Object{service("a", "own", true), &policy.MeshConfig{AuthPolicy: policy.AuthMutualTLS}}})
	w := r.watch(r.as("a", "web"), nil)
	if n := w.update(); n != 2 || w.last.Generation != "legacy" {
		t.Fatalf("%d, %v", n, w.last)
	}
	auto.Apply(policyfeed.Change{Put: []policy.Object{&policy.PeerAuthentication{Meta: policy.Meta{Name: "p", Namespace: "b"}}}})
	if n := w.update(); n != 2 || w.last.Generation != "v1" || !w.last.Snapshot {
		t.Errorf("%d, %v", n, w.last)
	}
	again := r.watch(r.as("a", "web"), w.held) // says that it holds v1's
	if n := again.update(); n != 0 {
		t.Errorf("%d", n)
	}
	auto.Apply(policyfeed.Change{Gone: []policy.Ref{{Kind: policy.KindPeerAuthentication, Namespace: "b", Name: "p"}}})
	again = r.watch(r.as("a", "web"), w.held)
	if n := again.update(); n != 2 || again.last.Generation != "legacy" {
		t.Errorf("%d, %v", n, again.last)
	}
}

// TestPolicyCallers: who is told nothing, and why.
func TestPolicyCallers(t *testing.T) {
	r := newPolicyRig(t)
	unready := func(err error) {
		t.Helper()
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "policy has not been read yet") {
			t.Errorf("before anything is known: %v", err)
		}
	}
	question := func(namespace string) *citadelv1.ExplainRequest {
		return &citadelv1.ExplainRequest{Client: &citadelv1.PolicyClient{Namespace: namespace}, Server: &citadelv1.PolicyServer{Host: "own.a.svc.cluster.local", Port: 80}}
	}
	_, err := r.as("a", "web").Explain(t.Context(), question("a"))
	unready(err)
	r.feed.Apply(policyfeed.Change{Unread: []policyfeed.Unread{{What: "Pod", Why: "pods is forbidden"}}, Broken: map[policy.Ref]error{{Kind: policy.KindMeshConfig}: errors.New("line 3")}})
	_, err = r.as("a", "web").Explain(t.Context(), question("a"))
	if unready(err); strings.Contains(err.Error(), "forbidden") || strings.Contains(err.Error(), "line 3") {
		t.Errorf("who is no reader hears the cause: %v", err)
	}
	_, err = r.as("ops", "reader").Explain(t.Context(), question("a"))
	if unready(err); !strings.Contains(err.Error(), "pods is forbidden") || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("%v", err)
	}
	r.feed.Apply(policyfeed.Change{Known: true, Put: []policy.Object{service("a", "own", true)}})
	bare := citadelv1.NewPolicyServiceClient(r.dial(nil))
	word := func(w string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w)
	}
	for name, c := range map[string]struct {
		client citadelv1.PolicyServiceClient
		ctx    context.Context
		code   codes.Code
		says   string
	}{
		"nobody":            {bare, t.Context(), codes.Unauthenticated, "no proof of identity"},
		"a wrong word":      {bare, word("x"), codes.Unauthenticated, "the word is wrong"},
		"no account":        {bare, word("host"), codes.PermissionDenied, "is no service account"},
		"an expired one":    {citadelv1.NewPolicyServiceClient(r.dial(r.client(aged(-time.Minute)))), t.Context(), codes.Unauthenticated, "the certificate expired"},
		"a panic":           {bare, word("panic"), codes.Internal, "the server failed"},
		"the CSR API's own": {bare, word("node"), codes.Unauthenticated, "the word is wrong"},
	} {
		stream, err := c.client.WatchPolicy(c.ctx, &citadelv1.WatchPolicyRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s watches: %v", name, err)
		}
		_, err = c.client.Explain(c.ctx, question("a"))
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s asks: %v", name, err)
		}
	}
	for namespace, code := range map[string]codes.Code{"a": codes.OK, "b": codes.PermissionDenied, "": codes.InvalidArgument} {
		if _, err := r.as("a", "web").Explain(t.Context(), question(namespace)); status.Code(err) != code {
			t.Errorf("a asks about clients of %q: %v", namespace, err)
		}
	}
	stream, err := r.as("a", "web").ListObjects(t.Context(), &citadelv1.ListObjectsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "--policy-readers") {
		t.Errorf("a lists: %v", err)
	}
}

// TestExplain: a reader is answered from everything, others from what they see.
func TestExplain(t *testing.T) {
	r := newPolicyRig(t)
	rule := &policy.DestinationRule{Meta: policy.Meta{Name: "r", Namespace: "zed"}, Spec: policy.DestinationRuleSpec{Host: "own.a.svc.cluster.local", TrafficPolicy: &policy.TrafficPolicy{}}}
	rule.Spec.TrafficPolicy.TLS = &policy.ClientTLS{Mode: policy.TLSDisable}
	pod := &policy.Pod{Meta: policy.Meta{Name: "p", Namespace: "a", Labels: map[string]string{"app": "own", "security.istio.io/tlsMode": "istio"}},
		Spec: policy.PodSpec{Containers: []policy.Container{{Name: "istio-proxy"}}}}
	own := service("a", "own", false)
	own.Spec.Selector = map[string]string{"app": "own"}
	r.feed.Apply(policyfeed.Change{Known: true, Put: []policy.Object{own, pod, rule,
		&policy.PeerAuthentication{Meta: policy.Meta{Name: "wide", Namespace: "a"}, Spec: policy.PeerAuthenticationSpec{MTLS: &policy.PeerMTLS{Mode: policy.Strict}}}}})
	req := &citadelv1.ExplainRequest{Client: &citadelv1.PolicyClient{Namespace: "b", Sidecar: true}, Server: &citadelv1.PolicyServer{Host: "own.a.svc.cluster.local", Port: 80}}
	for _, c := range []struct {
		client   citadelv1.PolicyServiceClient
		shadowed int // a rule that nobody goes by, and whose namespace is not b's business
	}{{r.as("b", "web"), 0}, {r.as("ops", "reader"), 1}} {
		got, err := c.client.Explain(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got.Server.Says != "STRICT" || got.Server.By != "PeerAuthentication/a/wide" || got.Client.Says != "ISTIO_MUTUAL" || got.Verdict != "OK" ||
			len(got.Client.Shadowed) != c.shadowed || fmt.Sprint(got.Identities) != "[spiffe://cluster.local/ns/a/sa/default]" ||
			got.DeclaredBy.GetName() != "own" || !got.PortDeclared || len(got.Endpoints) != 1 || got.Endpoints[0].Object.GetName() != "p" || got.Version != r.feed.State().Version {
			t.Errorf("%v", got)
		}
	}
	mesh := &policy.MeshConfig{RootNamespace: "istio-system"}
	r.feed.Apply(policyfeed.Change{Put: []policy.Object{mesh}})
	r.feed.Apply(policyfeed.Change{Gone: []policy.Ref{mesh.Ref()}, Unread: []policyfeed.Unread{{What: "Pod", Old: true, Why: "forbidden"}}})
	const fact = "Pod is not heard of, and what is known of it may be old"
	for _, c := range []struct {
		client citadelv1.PolicyServiceClient
		unread string
	}{{r.as("b", "web"), fact}, {r.as("ops", "reader"), fact + ": forbidden"}} {
		got, err := c.client.Explain(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(got.Warnings, func(w *citadelv1.PolicyWarning) bool { return w.Code == "unread" && w.Message == c.unread }) ||
			!slices.ContainsFunc(got.Warnings, func(w *citadelv1.PolicyWarning) bool {
				return w.Code == "mesh-config-gone" && strings.Contains(w.Message, "its defaults hold")
			}) {
			t.Errorf("want %q: %v", c.unread, got.Warnings)
		}
	}
	stream, err := r.as("ops", "reader").ListObjects(t.Context(), &citadelv1.ListObjectsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := stream.Recv()
	if err != nil || len(all.Objects) != 4 || !all.Complete || all.Generation != "v1" || all.Version == "" || len(all.Warnings) != 2 || len(all.Problems) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestWatchEnds for who is banned, and for a certificate that expires.
func TestWatchEnds(t *testing.T) {
	for name, c := range map[string]struct {
		left time.Duration
		then func(*policyRig, *catest.Issuer)
		says string
	}{
		"banned": {20 * time.Minute, func(r *policyRig, leaf *catest.Issuer) {
			bans, err := ca.NewBans(map[string]string{leaf.Cert.SerialNumber.Text(16): "lost"})
			if err != nil {
				t.Fatal(err)
			}
			r.server.set.Authority.SetBans(bans)
		}, "banned"},
		"expires": {2 * time.Second, func(*policyRig, *catest.Issuer) {}, "the certificate expired"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newPolicyRig(t)
			r.feed.Apply(policyfeed.Change{Known: true})
			leaf := r.client(aged(c.left))
			w := r.watch(citadelv1.NewPolicyServiceClient(r.dial(leaf)), nil)
			w.update()
			c.then(r, leaf)
			if _, err := w.stream.Recv(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestWatchesAreCounted: one caller, and all together, may have some open; one
// that ends makes place.
func TestWatchesAreCounted(t *testing.T) {
	r := newPolicyRig(t, func(s *Settings) { s.Policy.WatchesPerCaller, s.Policy.Watches = 2, 3 })
	r.feed.Apply(policyfeed.Change{Known: true})
	refused := func(c citadelv1.PolicyServiceClient, says string) {
		t.Helper()
		stream, err := c.WatchPolicy(t.Context(), &citadelv1.WatchPolicyRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), says) {
			t.Errorf("%v", err)
		}
	}
	web, other, third := r.as("a", "web"), r.as("b", "web"), r.as("c", "web")
	ctx, end := context.WithCancel(t.Context())
	stream, err := web.WatchPolicy(ctx, &citadelv1.WatchPolicyRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.watch(web, nil).update()
	refused(web, "the caller has 2 watches of policy open already")
	r.watch(other, nil).update()
	refused(third, "3 watches of policy are open already")
	end()
	for {
		stream, err := third.WatchPolicy(t.Context(), &citadelv1.WatchPolicyRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil {
			break
		}
		if t.Context().Err() != nil || status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
	}
}

// TestSlowReaderEnds: who takes nothing loses the call, not the server's memory.
func TestSlowReaderEnds(t *testing.T) {
	ended := make(chan Call, 1)
	r := newPolicyRig(t, func(s *Settings) {
		s.Policy.SendLimit, s.Policy.Recheck = 100*time.Millisecond, time.Hour
		s.Policy.Observe = func(c Call) { ended <- c }
	})
	var many []policy.Object
	for i := range 5000 {
		many = append(many, service("a", fmt.Sprintf("s%d", i), false))
	}
	r.feed.Apply(policyfeed.Change{Known: true, Put: many})
	if _, err := r.as("a", "web").WatchPolicy(t.Context(), &citadelv1.WatchPolicyRequest{}); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-ended:
		if c.Code != codes.ResourceExhausted || !strings.Contains(c.Err.Error(), "has not taken an update") {
			t.Errorf("%+v", c)
		}
	case <-time.After(time.Minute):
		t.Error("the call goes on")
	}
}
