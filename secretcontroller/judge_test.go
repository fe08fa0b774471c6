package secretcontroller

import (
	"bytes"
	"crypto/x509"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

var (
	now     = time.Date(2026, 7, 14, 12, 34, 56, 0, time.UTC)
	account = Account{Namespace: "web", Name: "sleep", UID: "uid-of-sleep"}
	sleepID = spiffeid.RequireFromString("spiffe://cluster.local/ns/web/sa/sleep")
)

type (
	edited  = func(*x509.Certificate)
	certs   = []*x509.Certificate
	certPEM = []byte
)

// pki is a root, an issuing CA below it, and strangers to both.
type pki struct {
	root, other, issuing *catest.Issuer
	alien                *catest.Issuer // a root whose leaves are right but for that
}

func newPKI(tb testing.TB) pki {
	tb.Helper()
	root := catest.Root(tb, now, catest.Spec{Name: "root"})
	return pki{
		root: root, issuing: root.Intermediate(tb, now, catest.Spec{Name: "issuing"}),
		other: catest.Root(tb, now, catest.Spec{Name: "other"}), alien: catest.Root(tb, now, catest.Spec{Name: "alien"}),
	}
}

// wants is what the Secret of account must be: leaves of one hour, due after
// half of it.
func (p pki) wants(roots ...*catest.Issuer) Want {
	if len(roots) == 0 {
		roots = []*catest.Issuer{p.root}
	}
	var list certs
	for _, r := range roots {
		list = append(list, r.Cert)
	}
	return Want{Account: account, ID: sleepID, Roots: NewRoots(list, now.Add(-24*time.Hour)),
		Rotation: Rotation{GraceRatio: 0.5, MinGrace: 10 * time.Minute, RootWindow: 5 * time.Minute}}
}

// secretOf holds the leaf's key, its chain and the roots, and bears our marks.
func secretOf(tb testing.TB, leaf *catest.Issuer, roots ...*catest.Issuer) *corev1.Secret {
	tb.Helper()
	if len(roots) == 0 {
		roots = []*catest.Issuer{leaf.Root()}
	}
	m := material{key: catest.KeyPEM(tb, leaf.Key), chain: trust.MarshalCertificates(leaf.Chain()), roots: bundle(roots...)}
	return compose(nil, account, m)
}

func bundle(issuers ...*catest.Issuer) certPEM {
	var out []byte
	for _, i := range issuers {
		out = append(out, i.PEM()...)
	}
	return out
}

func lives(from, to time.Time) edited {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

func names(dns ...string) edited {
	return func(c *x509.Certificate) { c.DNSNames = dns }
}

func uris(ids ...string) edited {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, id := range ids {
			u, err := url.Parse(id)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

// put replaces one piece of a Secret.
func put(key string, value []byte) func(*corev1.Secret) {
	return func(s *corev1.Secret) { s.Data[key] = value }
}

// judged is one Secret and what it must be found to be.
type judged struct {
	name   string
	leaf   []edited              // how its leaf differs from a good one
	damage func(*corev1.Secret)  // what happened to it
	secret func() *corev1.Secret // in place of the above
	want   func(*Want)
	reason Reason
	text   string // part of the detail
	keep   bool   // whether it may stay for now
}

func (j judged) check(t *testing.T, p pki) {
	t.Helper()
	want := p.wants()
	if j.want != nil {
		j.want(&want)
	}
	secret := secretOf(t, p.issuing.Leaf(t, now, sleepID, j.leaf...))
	if j.secret != nil {
		secret = j.secret()
	}
	if j.damage != nil {
		j.damage(secret)
	}
	before := secret.DeepCopy()
	v := Judge(now, secret, want)
	if v.Reason != j.reason || v.Keep(now) != j.keep || !strings.Contains(v.Detail, j.text) {
		t.Errorf("found %q (%s), stays: %v; want %q (…%s…), stays: %v", v.Reason, v.Detail, v.Keep(now), j.reason, j.text, j.keep)
	}
	if !reflect.DeepEqual(before, secret) {
		t.Error("judging changed the Secret (K-2)")
	}
	if again := Judge(now, secret, want); again != v {
		t.Errorf("the same Secret was judged %+v and then %+v", v, again)
	}
}

func run(t *testing.T, p pki, cases []judged) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, p) })
	}
}

func TestJudgeMeta(t *testing.T) {
	p := newPKI(t)
	secret := func(edit func(*corev1.Secret)) func(*corev1.Secret) { return edit }
	run(t, p, []judged{
		{name: "none", secret: func() *corev1.Secret { return nil }, reason: Missing, text: "there is no Secret istio.sleep"},
		{name: "good", reason: Right, keep: true},
		{name: "type of another", damage: secret(func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }), reason: WrongType, text: `"Opaque"`},
		{name: "type of TLS", damage: secret(func(s *corev1.Secret) { s.Type = corev1.SecretTypeTLS }), reason: WrongType, text: "kubernetes.io/tls"},
		{name: "annotation gone", damage: secret(func(s *corev1.Secret) { s.Annotations = nil }), reason: WrongAccount, text: `istio.io/service-account.name is ""`},
		{name: "annotation of another", damage: secret(func(s *corev1.Secret) { s.Annotations[AccountAnnotation] = "admin" }), reason: WrongAccount, text: `"admin"`},
		{name: "label gone", damage: secret(func(s *corev1.Secret) { s.Labels = nil }), reason: WrongOwner, text: "app.kubernetes.io/managed-by"},
		{name: "label of another", damage: secret(func(s *corev1.Secret) { s.Labels[ManagedByLabel] = "Helm" }), reason: WrongOwner, text: `"Helm"`},
		{name: "owner gone", damage: secret(func(s *corev1.Secret) { s.OwnerReferences = nil }), reason: WrongOwner, text: "not owned"},
		{name: "owner of an earlier life", damage: secret(func(s *corev1.Secret) { s.OwnerReferences[0].UID = "earlier" }), reason: WrongOwner, text: "not owned"},
		{name: "account of a later life", want: func(w *Want) { w.Account.UID = "later" }, reason: WrongOwner, text: "not owned"},
		{name: "a second owner", damage: secret(func(s *corev1.Secret) {
			s.OwnerReferences = append([]metav1.OwnerReference{{Kind: "Team", Name: "a", UID: "b"}}, s.OwnerReferences...)
		}), reason: Right, keep: true},
		{name: "further keys, labels and annotations", damage: secret(func(s *corev1.Secret) {
			s.Data["extra"], s.Labels["team"], s.Annotations["note"] = []byte("x"), "a", "b"
		}), reason: Right, keep: true},
		{name: "ancestor's, without marks (2.1)", damage: secret(func(s *corev1.Secret) { s.Labels, s.OwnerReferences = nil, nil }), reason: Right, keep: true},
		{name: "ancestor's, for another account", damage: secret(func(s *corev1.Secret) {
			s.Labels, s.OwnerReferences, s.Annotations[AccountAnnotation] = nil, nil, "admin"
		}), reason: WrongAccount},
	})
}

func TestJudgeKey(t *testing.T) {
	p := newPKI(t)
	good := catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, sleepID.String()))
	other := catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "another"))
	legacy, err := trust.MarshalLegacyKey(catest.Key(t, trust.ECDSAP256, sleepID.String()))
	if err != nil {
		t.Fatal(err)
	}
	run(t, p, []judged{
		{name: "missing", damage: func(s *corev1.Secret) { delete(s.Data, KeyKey) }, reason: BadKey, text: "key.pem holds no PEM private key"},
		{name: "empty", damage: put(KeyKey, nil), reason: BadKey},
		{name: "cut short", damage: put(KeyKey, good[:len(good)/2]), reason: BadKey, text: "damaged"},
		{name: "no PEM", damage: put(KeyKey, []byte("secret")), reason: BadKey},
		{name: "a certificate", damage: func(s *corev1.Secret) { s.Data[KeyKey] = s.Data[ChainKey] }, reason: BadKey, text: "certificate"},
		{name: "another's", damage: put(KeyKey, other), reason: BadKey, text: "is not the key of the certificate"},
		{name: "two", damage: put(KeyKey, slices.Concat(good, other)), reason: BadKey, text: "more than one"},
		{name: "SEC 1, as the ancestor wrote (2.1)", damage: put(KeyKey, legacy), reason: Right, keep: true},
		{name: "the issuer's", damage: put(KeyKey, catest.KeyPEM(t, p.issuing.Key)), reason: BadKey},
	})
}

func TestJudgeNeverQuotesTheKey(t *testing.T) {
	p := newPKI(t)
	secret := secretOf(t, p.issuing.Leaf(t, now, sleepID))
	text := secret.Data[KeyKey]
	body := string(bytes.Split(text, []byte("\n"))[1])
	for name, damaged := range map[string][]byte{
		"cut": text[:len(text)-30], "renamed": bytes.ReplaceAll(text, []byte("PRIVATE KEY"), []byte(body)), "bare": []byte(body),
		"in the chain's place": nil,
	} {
		s := secret.DeepCopy()
		if s.Data[KeyKey] = damaged; damaged == nil {
			s.Data[ChainKey] = text
		}
		if v := Judge(now, s, p.wants()); v.Reason == Right || strings.Contains(v.Detail, body[:10]) {
			t.Errorf("%s: found %q: %s", name, v.Reason, v.Detail)
		}
	}
}

func TestJudgeChain(t *testing.T) {
	p := newPKI(t)
	leaf := p.issuing.Leaf(t, now, sleepID)
	chain := trust.MarshalCertificates(leaf.Chain())
	below := p.issuing.Intermediate(t, now, catest.Spec{Name: "below"})
	deep := below.Leaf(t, now, sleepID)
	run(t, p, []judged{
		{name: "missing", damage: func(s *corev1.Secret) { delete(s.Data, ChainKey) }, reason: BadChain, text: "cert-chain.pem holds no PEM certificate"},
		{name: "no data at all", damage: func(s *corev1.Secret) { s.Data = nil }, reason: BadChain},
		{name: "cut short", damage: put(ChainKey, chain[:len(chain)-40]), reason: BadChain, text: "damaged"},
		{name: "leaf damaged", damage: put(ChainKey, append([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), chain...)), reason: BadChain},
		{name: "without the issuing CA", damage: put(ChainKey, leaf.PEM()), reason: BadChain, text: "does not verify"},
		{name: "issuing CA of another", damage: put(ChainKey, slices.Concat(leaf.PEM(), p.other.PEM())), reason: BadChain, text: "does not verify"},
		{name: "issuing CA first", damage: put(ChainKey, slices.Concat(p.issuing.PEM(), leaf.PEM())), reason: WrongName},
		{name: "a key inside", damage: put(ChainKey, slices.Concat(chain, catest.KeyPEM(t, leaf.Key))), reason: BadChain, text: "only certificates belong"},
		{name: "with the root at its end", damage: put(ChainKey, slices.Concat(chain, p.root.PEM())), reason: Right, keep: true},
		{name: "two issuing CAs", secret: func() *corev1.Secret { return secretOf(t, deep) }, reason: Right, keep: true},
		{name: "two issuing CAs, one left out", secret: func() *corev1.Secret { return secretOf(t, deep) },
			damage: put(ChainKey, slices.Concat(deep.PEM(), p.issuing.PEM())), reason: BadChain, text: "does not verify"},
		{name: "signed by an alien, our roots", secret: func() *corev1.Secret { return secretOf(t, p.alien.Leaf(t, now, sleepID), p.root) }, reason: BadChain},
		{name: "endless", damage: put(ChainKey, slices.Concat(chain, bytes.Repeat(p.issuing.PEM(), maxChain))), reason: BadChain, text: "more than 16"},
		{name: "our chain, an alien's roots", damage: put(RootsKey, p.alien.PEM()), reason: BadChain, text: "to the roots beside it"},
	})
}

// TestJudgeThinksOfPeers: what go-spiffe or a strict peer refuses is not right,
// be it signed by whom it may.
func TestJudgeThinksOfPeers(t *testing.T) { // compatibility 9, complaint 24
	p := newPKI(t)
	leaf := p.issuing.Leaf(t, now, sleepID)
	below := p.issuing.Intermediate(t, now, catest.Spec{Name: "below"})
	deep := below.Leaf(t, now, sleepID)
	chain := func(leaf *catest.Issuer, issuers ...*catest.Issuer) *corev1.Secret {
		s := secretOf(t, leaf)
		s.Data[ChainKey] = append(leaf.PEM(), bundle(issuers...)...)
		return s
	}
	with := func(edit edited) *corev1.Secret { return secretOf(t, p.issuing.Leaf(t, now, sleepID, edit)) }
	for name, secret := range map[string]*corev1.Secret{
		"issuing CAs in the wrong order": chain(deep, p.issuing, below),
		"a stranger's CA at the end":     chain(leaf, p.issuing, p.alien),
		"a second leaf at the end":       chain(leaf, p.issuing, leaf),
		"a leaf that may not sign":       with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
		"a leaf for clients alone":       with(usage(x509.ExtKeyUsageClientAuth)),
		"a leaf for servers alone":       with(usage(x509.ExtKeyUsageServerAuth)),
		"a leaf for code":                with(usage(x509.ExtKeyUsageCodeSigning)),
	} {
		if v := Judge(now, secret, p.wants()); v.Keep(now) {
			t.Errorf("%s: found %q, it stays", name, v.Reason)
		}
	}
}

func usage(u ...x509.ExtKeyUsage) edited { return func(c *x509.Certificate) { c.ExtKeyUsage = u } }

func TestJudgeNames(t *testing.T) {
	p := newPKI(t)
	id := sleepID.String()
	wants := func(dns ...string) func(*Want) { return func(w *Want) { w.DNSNames = dns } }
	run(t, p, []judged{
		{name: "another account (X-1)", leaf: []edited{uris("spiffe://cluster.local/ns/web/sa/admin")}, reason: WrongName, text: "sa/admin's, not"},
		{name: "another namespace", leaf: []edited{uris("spiffe://cluster.local/ns/prod/sa/sleep")}, reason: WrongName},
		{name: "another trust domain", leaf: []edited{uris("spiffe://example.org/ns/web/sa/sleep")}, reason: WrongName},
		{name: "the trust domain's own (X-2)", leaf: []edited{uris("spiffe://cluster.local")}, reason: WrongName},
		{name: "no SPIFFE ID", leaf: []edited{uris("https://cluster.local/ns/web/sa/sleep")}, reason: WrongName, text: "no SPIFFE certificate"},
		{name: "a malformed one (ID-4)", leaf: []edited{uris(id + "/")}, reason: WrongName},
		{name: "two URIs (X-1, X-12)", leaf: []edited{uris(id, "spiffe://cluster.local/ns/web/sa/admin")}, reason: WrongName, text: "more than one URI"},
		{name: "none", leaf: []edited{uris(), names("a.example")}, reason: WrongName, text: "no URI"},
		{name: "CA (X-6)", leaf: []edited{func(c *x509.Certificate) { c.IsCA = true }}, reason: WrongName, text: "CA's"},
		{name: "signs certificates (X-9)", leaf: []edited{func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign; c.IsCA = true }}, reason: WrongName, text: "CA's"},
		{name: "signs CRLs (X-9)", leaf: []edited{func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }}, reason: WrongName, text: "CA's"},
		{name: "an IP address", leaf: []edited{func(c *x509.Certificate) { c.IPAddresses = []net.IP{{10, 0, 0, 1}} }}, reason: WrongName, text: "addresses"},
		{name: "an e-mail address", leaf: []edited{func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.c"} }}, reason: WrongName, text: "addresses"},
		{name: "a DNS name too many", leaf: []edited{names("a.web")}, reason: WrongName, text: `"a.web"`},
		{name: "a DNS name too few", leaf: []edited{names("a.web")}, want: wants("a.web", "a.web.svc"), reason: WrongName, text: "policy says"},
		{name: "DNS names lost", want: wants("a.web"), reason: WrongName},
		{name: "another DNS name", leaf: []edited{names("b.web")}, want: wants("a.web"), reason: WrongName},
		{name: "a DNS name twice", leaf: []edited{names("a.web", "a.web")}, want: wants("a.web"), reason: WrongName},
		{name: "DNS names as wanted", leaf: []edited{names("a.web.svc", "a.web")}, want: wants("a.web.svc", "a.web"), reason: Right, keep: true},
		{name: "DNS names in another order", leaf: []edited{names("a.web", "a.web.svc")}, want: wants("a.web.svc", "a.web"), reason: Right, keep: true},
	})
}

func TestJudgeRoots(t *testing.T) {
	p := newPKI(t)
	both := func(w *Want) { w.Roots = p.wants(p.root, p.other).Roots }
	run(t, p, []judged{
		{name: "missing", damage: func(s *corev1.Secret) { delete(s.Data, RootsKey) }, reason: BadRoots, text: "root-cert.pem holds no PEM certificate"},
		{name: "damaged", damage: put(RootsKey, bundle(p.root)[:200]), reason: BadRoots, text: "damaged"},
		{name: "a key inside", damage: put(RootsKey, slices.Concat(bundle(p.root), catest.KeyPEM(t, p.root.Key))), reason: BadRoots},
		{name: "reordered", damage: put(RootsKey, bundle(p.other, p.root)), want: both, reason: Right, keep: true},
		{name: "repeated", damage: put(RootsKey, bundle(p.root, p.root)), reason: Right, keep: true},
		{name: "with text between", damage: put(RootsKey, append([]byte("# our root\n"), bundle(p.root)...)), reason: Right, keep: true},
		{name: "superset", damage: put(RootsKey, bundle(p.root, p.other)), reason: OldRoots},
		{name: "subset", want: both, reason: OldRoots},
		{name: "subset that does not verify", damage: put(RootsKey, bundle(p.other)), want: both, reason: BadChain},
		{name: "alien but coherent", secret: func() *corev1.Secret { return secretOf(t, p.alien.Leaf(t, now, sleepID)) }, reason: OldRoots},
	})
}

func TestJudgeTimes(t *testing.T) {
	p := newPKI(t)
	short := func(from, to time.Time) *catest.Issuer {
		return p.root.Intermediate(t, now, catest.Spec{Name: "issuing", Edit: lives(from, to)})
	}
	under := func(i *catest.Issuer, edits ...edited) func() *corev1.Secret {
		return func() *corev1.Secret { return secretOf(t, i.Leaf(t, now, sleepID, edits...)) }
	}
	past, soon := now.Add(-time.Hour), now.Add(time.Second)
	run(t, p, []judged{
		{name: "fresh", reason: Right, keep: true},
		{name: "before its half", leaf: []edited{lives(now.Add(-31*time.Minute), now.Add(30*time.Minute))}, reason: Right, keep: true},
		{name: "at its half", leaf: []edited{lives(now.Add(-32*time.Minute), now.Add(30*time.Minute))}, reason: Due, text: "grace period"},
		{name: "in grace", leaf: []edited{lives(past, now.Add(10*time.Minute))}, reason: Due},
		{name: "in its last second (R-2)", leaf: []edited{lives(past, now)}, reason: Due},
		{name: "expired", leaf: []edited{lives(past, now.Add(-time.Second))}, reason: Expired, text: "2026-07-14T12:34:55Z"},
		{name: "issuing CA expired before the leaf", secret: under(short(past, now.Add(-time.Second))), reason: Expired, text: "2026-07-14T12:34:55Z"},
		{name: "issuing CA ends soon", secret: under(short(past, now.Add(time.Minute)), lives(past, now.Add(time.Hour))), reason: Due},
		{name: "issuing CA not yet valid", secret: under(short(soon, now.Add(time.Hour))), reason: BadChain},
		{name: "not yet valid", leaf: []edited{lives(soon, now.Add(time.Hour))}, reason: NotYetValid, text: "2026-07-14T12:34:57Z"},
		{name: "valid from this second on", leaf: []edited{lives(now, now.Add(time.Hour))}, reason: Right, keep: true},
		{name: "expired, and of old roots", secret: under(p.alien, lives(past, now.Add(-time.Second))), reason: Expired},
	})
}

// TestChangeOfRootsIsSpread: within the window a Secret of old roots waits for
// its own turn, after it none waits, and its own renewal comes first if that is
// sooner.
func TestChangeOfRootsIsSpread(t *testing.T) { // compatibility 2.4, 11.2
	p := newPKI(t)
	due := lives(now.Add(-32*time.Minute), now.Add(30*time.Minute+2*time.Second))
	for name, c := range map[string]struct {
		since, window time.Duration
		leaf          []edited
		least, most   time.Duration // from now until it is due
	}{
		"changed just now":   {0, 5 * time.Minute, nil, 0, 5 * time.Minute},
		"a minute ago":       {-time.Minute, 5 * time.Minute, nil, -time.Minute, 4 * time.Minute},
		"the window is over": {-5 * time.Minute, 5 * time.Minute, nil, -5 * time.Minute, 0},
		"no window":          {0, 0, nil, 0, 0},
		"its own end":        {0, 24 * time.Hour, []edited{due}, 0, 3 * time.Second},
	} {
		want := p.wants()
		want.Roots.since, want.Rotation.RootWindow = now.Add(c.since), c.window
		v := Judge(now, secretOf(t, p.alien.Leaf(t, now, sleepID, c.leaf...)), want)
		if wait := v.RenewAt.Sub(now); v.Reason != OldRoots || wait < c.least || wait > c.most {
			t.Errorf("%s: found %q, due in %s; want within [%s, %s]", name, v.Reason, wait, c.least, c.most)
		}
	}
}

func TestVerdictTellsTheEnd(t *testing.T) {
	p := newPKI(t)
	ending := p.root.Intermediate(t, now, catest.Spec{Name: "issuing", Edit: lives(now.Add(-time.Hour), now.Add(40*time.Minute))})
	for name, c := range map[string]struct {
		secret *corev1.Secret
		end    time.Duration
	}{
		"the leaf's":            {secretOf(t, p.issuing.Leaf(t, now, sleepID)), time.Hour},
		"the issuing CA's":      {secretOf(t, ending.Leaf(t, now, sleepID)), 40 * time.Minute},
		"that of a longer path": {secretOf(t, ending.Leaf(t, now, sleepID), p.root), 40 * time.Minute},
	} {
		if v := Judge(now, c.secret, p.wants()); v.Reason != Right || !v.NotAfter.Equal(now.Add(c.end)) {
			t.Errorf("%s: found %q, ends at %s", name, v.Reason, v.NotAfter)
		}
	}
	if v := Judge(now, nil, p.wants()); !v.NotAfter.IsZero() {
		t.Errorf("no Secret ends at %s", v.NotAfter)
	}
	if v := (Verdict{}); v.Keep(now) {
		t.Error("the zero verdict keeps a Secret")
	}
}
