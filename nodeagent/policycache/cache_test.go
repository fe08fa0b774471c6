package policycache

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// disk is a file in memory.
type disk struct {
	mu     sync.Mutex
	text   []byte // guarded by mu
	writes int    // guarded by mu
	err    error  // guarded by mu
}

func (d *disk) load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.text == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(d.text), nil
}

func (d *disk) save(text []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	if d.err == nil {
		d.text = text
	}
	return d.err
}

func item(o policy.Object) *policyfeed.Item { return &policyfeed.Item{Object: o} }

func service(name string) *policy.Service {
	return &policy.Service{Meta: policy.Meta{Name: name, Namespace: "a"}, Spec: policy.ServiceSpec{Selector: map[string]string{"app": "x"}, Ports: []policy.ServicePort{{Name: "http", Port: 80}}}}
}

// world is a service with one sidecar, whose namespace says a mode.
func world(mode policy.Mode) caclient.PolicyUpdate {
	pod := &policy.Pod{Meta: policy.Meta{Name: "p", Namespace: "a", Labels: map[string]string{"app": "x"}}, Spec: policy.PodSpec{Containers: []policy.Container{{Name: "istio-proxy"}}}}
	peer := &policy.PeerAuthentication{Meta: policy.Meta{Name: "q", Namespace: "a"}, Spec: policy.PeerAuthenticationSpec{MTLS: &policy.PeerMTLS{Mode: mode}}}
	return caclient.PolicyUpdate{Snapshot: true, Version: "x.1", Generation: policy.V1, Objects: []*policyfeed.Item{item(service("s")), item(pod), item(peer)}}
}

var question = policy.Query{Client: policy.Client{Namespace: "b"}, Server: policy.Server{Host: "s.a.svc.cluster.local", Port: 80}}

func open(t *testing.T, d *disk) *Cache {
	t.Helper()
	c, err := Open(spiffeid.ID{}, d.load, d.save)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWithoutPolicy is STRICT, and nobody to call.
func TestWithoutPolicy(t *testing.T) {
	c := open(t, &disk{})
	d := c.Resolve(question)
	if d.Server != policy.Strict || d.Server.AcceptsPlainText() || d.Client != policy.TLSIstioMutual || d.Verdict != policy.Conflict {
		t.Errorf("%+v", d)
	}
	if s := c.Status(time.Now()); s.Source != None || c.Current() != nil || len(c.Held().Digests) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestCacheOutlivesTheAgent: what the CA said holds after a restart, and what
// changes counts at once.
func TestCacheOutlivesTheAgent(t *testing.T) {
	d := &disk{}
	c := open(t, d)
	changed := c.Changed()
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c.Update(at, world(policy.Disable))
	<-changed
	if got := c.Resolve(question).Server; got != policy.Disable {
		t.Errorf("%s", got)
	}
	changed = c.Changed()
	c.Update(at, world(policy.Disable))
	select {
	case <-changed:
		t.Error("the same again is a change")
	default:
	}
	if err := c.Keep(); err != nil {
		t.Fatal(err)
	}
	again := open(t, d)
	if got := again.Resolve(question).Server; got != policy.Disable {
		t.Errorf("after a restart %s", got)
	}
	if s := again.Status(at.Add(time.Hour)); s.Source != Disk || s.Version != "x.1" || s.Objects != 3 || !s.Heard.Equal(at) || s.Watching {
		t.Errorf("%+v", s)
	}
	if held, want := again.Held(), c.Held(); !bytes.Equal(held.Digests, want.Digests) || held.Generation != policy.V1 {
		t.Error("after a restart it says that it holds something else")
	}
	delta := caclient.PolicyUpdate{Version: "x.2", Generation: policy.V1, Objects: world(policy.Strict).Objects[2:], Removed: []policy.Ref{service("none").Ref()}}
	again.Update(at, delta)
	if got := again.Resolve(question).Server; got != policy.Strict {
		t.Errorf("after a delta %s", got)
	}
	if s := again.Status(at.Add(time.Hour)); s.Source != CA || s.Version != "x.2" || !s.Heard.Equal(at.Add(time.Hour)) {
		t.Errorf("%+v", s)
	}
	again.Lost(at.Add(2*time.Hour), errors.New("gone"))
	if s := again.Status(at.Add(3 * time.Hour)); s.Source != CA || !s.Heard.Equal(at.Add(2*time.Hour)) || s.LastError != "gone" || s.Watching {
		t.Errorf("%+v", s)
	}
}

// TestPolicyIsOneHosts: what was told to one is no policy of another, nor of a
// host that is nobody yet; and who becomes another keeps it as that.
func TestPolicyIsOneHosts(t *testing.T) {
	now := time.Now()
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	web, db := spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/web"), spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/db")
	d := &disk{}
	is := func(self spiffeid.ID) {
		t.Helper()
		for _, other := range []spiffeid.ID{web, db, {}} {
			c, err := Open(other, d.load, d.save)
			if got := c.Current() != nil; got != (other == self) || got != (err == nil) || err != nil && !strings.Contains(err.Error(), "was told to") {
				t.Errorf("told to %q, opened by %q: %v, %v", self, other, got, err)
			}
		}
	}
	c := open(t, d)
	for _, self := range []spiffeid.ID{web, db} { // the second hears the same
		ctx, cancel := context.WithCancel(t.Context())
		c.Run(ctx, Watch{Tell: func(error) {}, Config: func() (caclient.Config, bool) {
			return caclient.Config{Certificate: &tls.Certificate{Leaf: root.Leaf(t, now, self).Cert}}, true
		}, Policy: func(ctx context.Context, _ caclient.Config, _ caclient.PolicyHeld, told func(caclient.PolicyUpdate) error) error {
			defer cancel()
			return told(world(policy.Strict))
		}})
		is(self)
	}
}

// TestUpdates: what goes by name, by bucket, and by a snapshot.
func TestUpdates(t *testing.T) {
	services := func(names ...string) (all []*policyfeed.Item) {
		for _, n := range names {
			all = append(all, item(service(n)))
		}
		return all
	}
	ref := func(n string) policy.Ref { return service(n).Ref() }
	for name, c := range map[string]struct {
		update caclient.PolicyUpdate
		want   string
	}{
		"comes":    {caclient.PolicyUpdate{Objects: services("d")}, "a b c d"},
		"goes":     {caclient.PolicyUpdate{Removed: []policy.Ref{ref("a")}}, "b c"},
		"replaced": {caclient.PolicyUpdate{Replaced: []uint32{policyfeed.Bucket(ref("a")), policyfeed.Bucket(ref("b"))}, Objects: services("b")}, "b c"},
		"snapshot": {caclient.PolicyUpdate{Snapshot: true, Objects: services("z")}, "z"},
		"nothing":  {caclient.PolicyUpdate{Snapshot: true}, ""},
	} {
		held := apply(nil, caclient.PolicyUpdate{Objects: services("a", "b", "c")})
		var got []string
		after := apply(held, c.update)
		for _, n := range []string{"a", "b", "c", "d", "z"} {
			if after[ref(n)] != nil {
				got = append(got, n)
			}
		}
		if strings.Join(got, " ") != c.want || len(got) != len(after) {
			t.Errorf("%s: %v", name, got)
		}
		if len(held) != 3 {
			t.Errorf("%s: what was held changed", name)
		}
	}
}

// TestDamagedFile is as good as none, which is STRICT, and is told.
func TestDamagedFile(t *testing.T) {
	d := &disk{}
	c := open(t, d)
	c.Update(time.Now(), world(policy.Disable))
	if err := c.Keep(); err != nil {
		t.Fatal(err)
	}
	whole := d.text
	for name, text := range map[string][]byte{
		"empty": {}, "half": whole[:len(whole)/2], "a bit": bytes.Replace(whole, []byte("DISABLE"), []byte("DISABLf"), 1),
		"cut": whole[:len(whole)-1], "garbage": []byte("xx"), "no sum": whole[:len(whole)-sumLength],
		"another format": resummed(bytes.Replace(whole, []byte(`"format":2`), []byte(`"format":1`), 1)),
		"one less":       resummed(bytes.Replace(whole, []byte(`"objects":3`), []byte(`"objects":4`), 1)),
		"not decodable":  resummed(bytes.Replace(whole, []byte("DISABLE"), []byte("DISABLf"), 1)),
	} {
		c, err := Open(spiffeid.ID{}, func() ([]byte, error) { return text, nil }, d.save)
		if err == nil || !strings.Contains(err.Error(), "does not count") {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.Resolve(question).Server; got != policy.Strict || c.Status(time.Now()).Source != None || c.Status(time.Now()).LastError == "" {
			t.Errorf("%s: %s, %+v", name, got, c.Status(time.Now()))
		}
	}
}

func resummed(text []byte) []byte {
	body := text[:len(text)-sumLength]
	return append(bytes.Clone(body), sumOf(body)...)
}

// TestRun: the CA is watched with what is held, again when it goes away or the
// proof is another, and the file is written now and then.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		c := open(t, d)
		again := make(chan struct{})
		var held []int
		var tells []error
		var ready atomic.Bool
		fail := errors.New("gone")
		w := Watch{
			Config: func() (caclient.Config, bool) { return caclient.Config{}, ready.Load() },
			Again:  again,
			Tell:   func(err error) { tells = append(tells, err) },
			Policy: func(ctx context.Context, _ caclient.Config, h caclient.PolicyHeld, told func(caclient.PolicyUpdate) error) error {
				held = append(held, len(h.Digests))
				if err := told(world(policy.Disable)); err != nil {
					return err
				}
				if len(held) == 1 {
					return fail
				}
				for i := range 100 { // ten a second
					update := caclient.PolicyUpdate{Version: fmt.Sprint("x.", i), Generation: policy.V1, Objects: []*policyfeed.Item{item(service(fmt.Sprint("t", i)))}}
					if err := told(update); err != nil {
						return err
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				<-ctx.Done()
				return ctx.Err()
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); c.Run(ctx, w) }()
		<-time.After(10 * time.Second)
		synctest.Wait()
		if len(held) != 0 {
			t.Error("the CA was asked without a proof")
		}
		ready.Store(true)
		<-time.After(15 * time.Second)
		synctest.Wait()
		if fmt.Sprint(held) != fmt.Sprint([]int{0, policyfeed.Buckets * policyfeed.DigestSize}) || tells[0] != nil || tells[1] != fail {
			t.Errorf("held %v, told %v", held, tells)
		}
		if d.writes < 5 || d.writes > 15 {
			t.Errorf("%d writes for 100 updates in ten seconds", d.writes)
		}
		again <- struct{}{}
		<-time.After(time.Second)
		synctest.Wait()
		if len(held) != 3 {
			t.Errorf("another proof is not used: %v", held)
		}
		cancel()
		<-ended
		restarted := open(t, d)
		if got, want := restarted.Held().Digests, c.Held().Digests; !bytes.Equal(got, want) {
			t.Error("the end was not kept")
		}
		if s := c.Status(time.Now()); s.Watching {
			t.Errorf("%+v", s)
		}
	})
}

// TestNotKept: what cannot be written counts all the same, is told, and is tried
// again.
func TestNotKept(t *testing.T) {
	d := &disk{err: errors.New("full")}
	c := open(t, d)
	c.Update(time.Now(), world(policy.Disable))
	if err := c.Keep(); err == nil || !strings.Contains(err.Error(), "a restart will not know of it: full") || !strings.Contains(c.Status(time.Now()).LastError, "full") || !NotKept(err) || NotKept(d.err) {
		t.Errorf("%v", err)
	}
	if got := c.Resolve(question).Server; got != policy.Disable {
		t.Errorf("%s", got)
	}
	d.err = nil
	if err := c.Keep(); err != nil || d.text == nil {
		t.Errorf("%v", err)
	}
}

// TestNotServed: a CA without policy is no error; what is known stays, and what
// is not is STRICT.
func TestNotServed(t *testing.T) {
	none := &caclient.Error{Kind: caclient.Broken, NotServed: true, Reason: "unknown service"}
	c := open(t, &disk{})
	c.Lost(time.Now(), errors.New("gone"))
	c.Lost(time.Now(), none)
	if s := c.Status(time.Now()); !s.NotServed || s.LastError != "" || s.Source != None || c.Resolve(question).Server != policy.Strict {
		t.Errorf("%+v", s)
	}
	c.Update(time.Now(), world(policy.Disable))
	c.Lost(time.Now(), none)
	if s := c.Status(time.Now()); !s.NotServed || s.LastError != "" || s.Source != CA || s.Watching || c.Resolve(question).Server != policy.Disable {
		t.Errorf("%+v", s)
	}
	c.Lost(time.Now(), errors.New("gone"))
	if s := c.Status(time.Now()); s.NotServed || s.LastError != "gone" {
		t.Errorf("%+v", s)
	}
}

// FuzzParse: whatever the file holds, it is read to something that can be kept, or
// not at all.
func FuzzParse(f *testing.F) {
	d := &disk{}
	c, err := Open(spiffeid.ID{}, d.load, d.save)
	if err != nil {
		f.Fatal(err)
	}
	c.Update(time.Unix(1, 0), world(policy.Disable))
	if err := c.Keep(); err != nil {
		f.Fatal(err)
	}
	f.Add(d.text[:len(d.text)-sumLength])
	f.Add([]byte(`{"format":2,"generation":"v1","of":"spiffe://a/b"}`))
	f.Add([]byte("{\"format\":2,\"generation\":\"v1\",\"objects\":1}\n3 abc\n"))
	f.Add([]byte("{\"format\":2,\"generation\":\"v1\"}\n99999999999999999999 abc\n-1 x\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		k, err := parse(append(bytes.Clone(body), sumOf(body)...))
		if err != nil {
			return
		}
		again, err := parse(k.text())
		if err != nil || len(again.items) != len(k.items) || again.generation != k.generation || again.of != k.of {
			t.Errorf("%v: %q", err, body)
		}
	})
}
