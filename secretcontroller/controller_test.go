package secretcontroller

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestServiceAccountGetsItsSecret(t *testing.T) { // compatibility 2.1
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.quiet()
		r.make(serviceAccount("default", "sleep"))
		r.pass(0)
		o := r.expect(Created, Missing)
		r.right("default", "sleep")
		s := r.secret("default", "istio.sleep")
		if o.Name != "default/istio.sleep" || o.Err != nil || !o.NotAfter.Equal(time.Now().Add(time.Hour).Truncate(time.Second)) {
			t.Errorf("observed %+v", o)
		}
		if s.Labels[ManagedByLabel] != ManagedBy || len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID == "" {
			t.Errorf("marks %v, %v", s.Labels, s.OwnerReferences)
		}
		if e := r.event(); e != "" {
			t.Errorf("Event %q", e)
		}
		if w := r.calls("create", "secrets") + r.calls("update", "secrets"); w != 1 {
			t.Errorf("%d writes for one Secret (K-5)", w)
		}
	})
}

func TestKeysAsSettingsSay(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Settings)
		text string
	}{
		"PKCS#8":            {func(*Settings) {}, "-----BEGIN PRIVATE KEY-----"},
		"SEC 1":             {func(s *Settings) { s.LegacyKeys = true }, "-----BEGIN EC PRIVATE KEY-----"},
		"PKCS#1":            {func(s *Settings) { s.LegacyKeys, s.KeyType = true, trust.RSA2048 }, "-----BEGIN RSA PRIVATE KEY-----"},
		"RSA in PKCS#8":     {func(s *Settings) { s.KeyType = trust.RSA2048 }, "-----BEGIN PRIVATE KEY-----"},
		"P-384 in PKCS#8":   {func(s *Settings) { s.KeyType = trust.ECDSAP384 }, "-----BEGIN PRIVATE KEY-----"},
		"names of policy":   {func(s *Settings) { s.Authority = withNames(t, "sleep.default") }, ""},
		"an issuing CA too": {func(s *Settings) { s.Authority = plugged(t, time.Now()) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start(c.edit)
				r.right("default", "sleep")
				if key := r.secret("default", "istio.sleep").Data[KeyKey]; !bytes.HasPrefix(key, []byte(c.text)) {
					t.Errorf("key is %.40s…", key)
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

func withNames(t *testing.T, names ...string) *ca.Authority {
	t.Helper()
	id, err := ca.ServiceAccountID(catest.TrustDomain, "default", "sleep")
	if err != nil {
		t.Fatal(err)
	}
	return catest.Authority(t, time.Now(), ca.Config{DNSNames: ca.DNSNames{id: names}})
}

func plugged(t *testing.T, at time.Time) *ca.Authority {
	t.Helper()
	issuing := catest.Root(t, at, catest.Spec{Name: "root"}).Intermediate(t, at, catest.Spec{Name: "issuing"})
	return catest.Authority(t, at, ca.Config{Signer: issuing.Signer(t, at)})
}

// TestEditsAreRepaired: by one write, at once, and what others added stays.
func TestEditsAreRepaired(t *testing.T) { // compatibility 11.3
	for name, c := range map[string]struct {
		edit   func(*corev1.Secret)
		reason Reason
	}{
		"emptied":             {func(s *corev1.Secret) { s.Data = nil }, BadChain},
		"key taken away":      {func(s *corev1.Secret) { delete(s.Data, KeyKey) }, BadKey},
		"roots taken away":    {func(s *corev1.Secret) { delete(s.Data, RootsKey) }, BadRoots},
		"annotation":          {func(s *corev1.Secret) { s.Annotations[AccountAnnotation] = "admin" }, WrongAccount},
		"label":               {func(s *corev1.Secret) { delete(s.Labels, ManagedByLabel) }, WrongOwner},
		"owner":               {func(s *corev1.Secret) { s.OwnerReferences = nil }, WrongOwner},
		"chain of one letter": {func(s *corev1.Secret) { s.Data[ChainKey] = []byte("x") }, BadChain},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start()
				r.take()
				s := r.secret("default", "istio.sleep")
				s.Labels["team"], s.Data["extra"] = "a", []byte("x")
				c.edit(s)
				r.update(s)
				r.untouched(func() { r.pass(0) })
				r.expect(Replaced, c.reason)
				r.right("default", "sleep")
				if s = r.secret("default", "istio.sleep"); s.Labels["team"] != "a" {
					t.Error("others' label is lost")
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestWidenedRootsAreDamage: what this process saw right does not go back to
// other roots by itself, so it does not wait for a window.
func TestWidenedRootsAreDamage(t *testing.T) { // compatibility 11.3
	for name, edit := range map[string]func(*testing.T, *corev1.Secret){
		"a root more": func(t *testing.T, s *corev1.Secret) {
			s.Data[RootsKey] = append(s.Data[RootsKey], catest.Root(t, time.Now(), catest.Spec{Name: "alien"}).PEM()...)
		},
		"a coherent Secret of an alien's": func(t *testing.T, s *corev1.Secret) {
			s.Data = ancestors(t, plugged(t, time.Now()), "sleep").Data
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start(func(s *Settings) { s.RootsSince, s.Rotation.RootWindow = time.Now(), time.Hour })
				r.take()
				s := r.secret("default", "istio.sleep")
				edit(t, s)
				r.update(s)
				r.pass(0)
				r.expect(Replaced, BadRoots)
				r.right("default", "sleep")
			}, serviceAccount("default", "sleep"))
		})
	}
}

func TestHarmlessEditsAreLeft(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		s := r.secret("default", "istio.sleep")
		r.take()
		s.Labels["team"], s.Annotations["note"], s.Data["extra"] = "a", "b", []byte("x")
		r.update(s)
		r.pass(time.Minute)
		r.quiet()
	}, serviceAccount("default", "sleep"))
}

func TestDeletedSecretIsMadeAgain(t *testing.T) { // compatibility 2.4
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		r.remove("default", "istio.sleep")
		r.pass(0)
		r.expect(Created, Vanished)
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

// TestRotation: a Secret is renewed at half of life, for ever, and nothing
// happens between.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		for range 4 {
			r.pass(29 * time.Minute)
			r.quiet()
			r.pass(61 * time.Second)
			r.expect(Replaced, Due)
			r.right("default", "sleep")
		}
	}, serviceAccount("default", "sleep"))
}

// TestShortLives: a TTL of a minute works, and costs two writes a minute.
func TestShortLives(t *testing.T) { // compatibility 2.4: the ancestor was always in grace
	bubble(t, func(t *testing.T, r *rig) {
		r.start(func(s *Settings) { s.TTL = time.Minute })
		r.take()
		r.pass(10 * time.Minute)
		if n := len(r.take()); n < 19 || n > 21 {
			t.Errorf("%d writes in 10 minutes", n)
		}
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

// TestFreshVerdictIsJudges: what is not judged after it was written would be
// judged the same.
func TestFreshVerdictIsJudges(t *testing.T) {
	for name, authority := range map[string]func(*testing.T) *ca.Authority{
		"self-signed": func(t *testing.T) *ca.Authority { return catest.Authority(t, time.Now(), ca.Config{}) },
		"plugged":     func(t *testing.T) *ca.Authority { return plugged(t, time.Now()) },
		"names":       func(t *testing.T) *ca.Authority { return withNames(t, "sleep.default", "a.example") },
		"ending soon": func(t *testing.T) *ca.Authority {
			end := lives(time.Now().Add(-time.Hour), time.Now().Add(20*time.Minute))
			issuing := catest.Root(t, time.Now(), catest.Spec{Name: "root", Edit: end}).Intermediate(t, time.Now(), catest.Spec{Name: "issuing"})
			return catest.Authority(t, time.Now(), ca.Config{Signer: issuing.Signer(t, time.Now())})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				s := r.settings()
				s.Authority, s.Rotation.Jitter = authority(t), 0.3
				c, err := New(s)
				if err != nil {
					t.Fatal(err)
				}
				account := Account{Namespace: "default", Name: "sleep", UID: "u"}
				want, err := c.want(account)
				if err != nil {
					t.Fatal(err)
				}
				fresh, err := c.issue(time.Now(), want)
				if err != nil {
					t.Fatal(err)
				}
				secret := compose(nil, account, fresh)
				if got, judged := fresh.verdict(want), Judge(time.Now(), secret, want); got != judged || !fresh.in(secret) {
					t.Errorf("taken for %+v, judged %+v", got, judged)
				}
				secret.Data[ChainKey] = append(secret.Data[ChainKey], ' ')
				if fresh.in(secret) {
					t.Error("a Secret that was changed on its way counts as what was written")
				}
			})
		})
	}
}

// TestRestartWritesNothing: a new leader takes over what is right.
func TestRestartWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var authority *ca.Authority
		stop := r.start(func(s *Settings) { authority = s.Authority })
		stop()
		before := r.writes()
		r.take()
		r.start(func(s *Settings) { s.Authority, s.RootsSince = authority, time.Now() })
		r.pass(time.Minute)
		r.quiet()
		if n := r.writes() - before; n != 0 {
			t.Errorf("%d writes after a restart", n)
		}
		if s := r.c.Status(); !s.Leading || s.Secrets != 2 || s.InError != 0 || s.LastSuccess.IsZero() {
			t.Errorf("status %+v", s)
		}
	}, serviceAccount("default", "sleep"), serviceAccount("default", "httpbin"))
}

// TestAncestorsSecretsAreTakenOver: while they are right they are left as they
// are, and then they are made ours.
func TestAncestorsSecretsAreTakenOver(t *testing.T) { // compatibility 2.1
	bubble(t, func(t *testing.T, r *rig) {
		authority := plugged(t, time.Now())
		s := ancestors(t, authority, "sleep")
		r.make(s)
		r.start(func(set *Settings) { set.Authority = authority })
		r.pass(20 * time.Minute)
		r.quiet()
		if now := r.secret("default", "istio.sleep"); len(now.Labels) > 0 || !bytes.Equal(now.Data[KeyKey], s.Data[KeyKey]) {
			t.Error("rewritten while it was right")
		}
		r.pass(10 * time.Minute)
		r.expect(Replaced, Due)
		if now := r.secret("default", "istio.sleep"); now.Labels[ManagedByLabel] != ManagedBy || len(now.OwnerReferences) != 1 {
			t.Errorf("made anew, it bears %v, %v", now.Labels, now.OwnerReferences)
		}
	}, serviceAccount("default", "sleep"))
}

// ancestors is a Secret as Citadel 1.4 wrote it: no label, no owner, a key in
// the old encoding.
func ancestors(t *testing.T, a *ca.Authority, account string) *corev1.Secret {
	t.Helper()
	id, err := ca.ServiceAccountID(a.TrustDomain(), "default", account)
	if err != nil {
		t.Fatal(err)
	}
	key := catest.Key(t, trust.RSA2048, "ancestor's")
	chain, err := a.Issue(time.Now(), ca.NewCaller(id, "test", ""), ca.Request{CSR: catest.CSR(t, key), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	text, err := trust.MarshalLegacyKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: SecretName(account), Annotations: map[string]string{AccountAnnotation: account}},
		Type:       SecretType,
		Data:       map[string][]byte{KeyKey: text, ChainKey: trust.MarshalCertificates(chain), RootsKey: a.Signer().RootsPEM()},
	}
}

// TestChangeOfRootsRewritesAll: within the window, each once, not all at once.
func TestChangeOfRootsRewritesAll(t *testing.T) { // compatibility 2.4, 11.2
	bubble(t, func(t *testing.T, r *rig) {
		const accounts = 40
		for i := range accounts {
			r.make(serviceAccount("default", "a-"+string('a'+rune(i/26))+string('a'+rune(i%26))))
		}
		stop := r.start()
		stop()
		r.take()
		old := r.secret("default", "istio.a-aa").Data[RootsKey]
		r.start(func(s *Settings) {
			s.Authority, s.RootsSince, s.Rotation.RootWindow = plugged(t, time.Now()), time.Now(), 5*time.Minute
		})
		var perMinute []int
		for range 6 {
			r.pass(time.Minute)
			n := 0
			for _, o := range r.take() {
				if o.Object == "Secret" && o.Reason == OldRoots && o.Action == Replaced {
					n++
				}
			}
			perMinute = append(perMinute, n)
		}
		sum := 0
		for _, n := range perMinute {
			sum += n
		}
		if sum != accounts || slices.Max(perMinute) > accounts/2 || perMinute[5] > 0 {
			t.Errorf("rewrites by minute: %v", perMinute)
		}
		r.right("default", "a-aa")
		if bytes.Equal(old, r.secret("default", "istio.a-aa").Data[RootsKey]) {
			t.Error("the old roots are still there")
		}
	})
}

// TestAccountMadeAnewUnderItsName: after a broken watch the cache may see only
// that another service account bears the name. The Secret must be its own, or
// garbage collection takes it away.
func TestAccountMadeAnewUnderItsName(t *testing.T) { // K-6; compatibility 11.4
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		sa, err := r.people.CoreV1().ServiceAccounts("default").Get(t.Context(), "sleep", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		sa.UID = "another"
		if _, err := r.people.CoreV1().ServiceAccounts("default").Update(t.Context(), sa, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
		r.expect(Replaced, WrongOwner)
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

func TestSettingsMustBeComplete(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for name, edit := range map[string]func(*Settings){
			"client": func(s *Settings) { s.Client = nil }, "authority": func(s *Settings) { s.Authority = nil },
			"recorder": func(s *Settings) { s.Recorder = nil }, "observer": func(s *Settings) { s.Observe = nil },
			"workers": func(s *Settings) { s.Workers = 0 }, "TTL": func(s *Settings) { s.TTL = 0 },
		} {
			s := r.settings()
			edit(&s)
			if _, err := New(s); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("without %s: %v", name, err)
			}
		}
	})
}

// TestChainThatNoSecretMayHold stops the start: each restart would judge every
// Secret wrong.
func TestChainThatNoSecretMayHold(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		issuer := catest.Root(t, time.Now(), catest.Spec{Name: "root"})
		for n := 1; n <= maxChain; n++ {
			issuer = issuer.Intermediate(t, time.Now(), catest.Spec{Name: fmt.Sprint("below ", n)})
			s := r.settings()
			s.Authority = catest.Authority(t, time.Now(), ca.Config{Signer: issuer.Signer(t, time.Now())})
			if _, err := New(s); (err != nil) != (n == maxChain) {
				t.Errorf("%d issuers: %v", n, err)
			}
		}
	})
}

// TestAccountWhoseNameIsTooLong: it cannot have a Secret, and is told so.
func TestAccountWhoseNameIsTooLong(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.make(serviceAccount("default", strings.Repeat("a", 250)))
		r.start()
		if o := r.expectUpTo(2, Failed, Right); o.Err == nil {
			t.Errorf("observed %+v", o)
		}
		if e := r.event(); !strings.Contains(e, "Warning SecretFailed") || !strings.Contains(e, "makes no name for a Secret") {
			t.Errorf("Event %q", e)
		}
		if n := r.calls("create", "secrets"); n > 0 {
			t.Errorf("%d creates", n)
		}
		if s := r.c.Status(); s.InError != 1 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestIssuedForTheAccountAlone: what stands in the Secret is of the name and
// the living service account, whatever the annotation said.
func TestIssuedForTheAccountAlone(t *testing.T) { // compatibility 2.4: anybody got any name
	bubble(t, func(t *testing.T, r *rig) {
		r.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "istio.sleep",
			Annotations: map[string]string{AccountAnnotation: "admin"}}, Type: SecretType})
		r.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "mine",
			Annotations: map[string]string{AccountAnnotation: "sleep"}}, Type: SecretType})
		r.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "istio.nobody",
			Annotations: map[string]string{AccountAnnotation: "sleep"}}, Type: SecretType})
		r.start()
		r.right("default", "sleep")
		leaf := leafOf(t, r.secret("default", "istio.sleep"))
		if got := leaf.URIs[0].String(); got != "spiffe://cluster.local/ns/default/sa/sleep" {
			t.Errorf("issued for %s", got)
		}
		for _, name := range []string{"mine", "istio.nobody"} {
			if s := r.secret("default", name); len(s.Data) > 0 {
				t.Errorf("Secret %s got an identity", name)
			}
		}
	}, serviceAccount("default", "sleep"), serviceAccount("default", "admin"))
}

func leafOf(t *testing.T, s *corev1.Secret) *x509.Certificate {
	t.Helper()
	list, err := trust.ParseCertificates(s.Data[ChainKey])
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}
