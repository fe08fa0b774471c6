package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestMain drops what the leader election says of the faults made here.
func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	// The global brake on errors remembers the time of the last one, which in the
	// next bubble of synctest lies in the future: it would hold informers up.
	utilruntime.ErrorHandlers = nil
	m.Run()
}

const storage = "istio-system"

var (
	secrets   = schema.GroupResource{Resource: "secrets"}
	errBroken = errors.New("connection refused")
)

// failures are the ways in which an API server does not answer, none of which
// means that a Secret is not there.
func failures() map[string]error {
	return map[string]error{
		"forbidden":        apierrors.NewForbidden(secrets, "x", errBroken),
		"unauthorized":     apierrors.NewUnauthorized("token expired"),
		"internal error":   apierrors.NewInternalError(errBroken),
		"too many":         apierrors.NewTooManyRequests("slow down", 1),
		"unavailable":      apierrors.NewServiceUnavailable("starting"),
		"server's timeout": apierrors.NewTimeoutError("etcd", 1),
		"our timeout":      context.DeadlineExceeded,
		"no connection":    errBroken,
	}
}

// store is a fake API server and what was told to the caller of a load.
type store struct {
	*fake.Clientset
	mu   sync.Mutex
	told []error // guarded by mu
}

func newStore(objects ...runtime.Object) *store {
	return &store{Clientset: fake.NewSimpleClientset(objects...)}
}

func (s *store) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, err)
}

// fail makes the next n calls of that verb on Secrets end in err.
func (s *store) fail(verb string, n int, err error) *store {
	s.PrependReactor(verb, "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		n--
		return n >= 0, nil, err
	})
	return s
}

func (s *store) calls(verb string) int {
	n := 0
	for _, a := range s.Actions() {
		if a.Matches(verb, "secrets") {
			n++
		}
	}
	return n
}

func (s *store) untouched(t *testing.T) {
	t.Helper()
	for _, a := range s.Actions() {
		if !slices.Contains([]string{"get", "list", "watch"}, a.GetVerb()) {
			t.Errorf("%s of a %s", a.GetVerb(), a.GetResource().Resource)
		}
	}
}

// selfSigned is the source of a cluster in which no roots are published.
func (s *store) selfSigned() Source {
	return Source{Client: s, Namespace: storage, Choice: OnlyCASecret, Tell: s.tell, MayMake: func(context.Context) error { return nil },
		Published: func(context.Context) ([]*x509.Certificate, error) { return nil, nil }, PublishedIn: "ConfigMap istio-system/istio-security",
		Root: trust.SelfSigned{TrustDomain: catest.TrustDomain, KeyType: trust.ECDSAP256, Lifetime: 87600 * time.Hour}}
}

// load is Load, its answer apart.
func (s Source) load(ctx context.Context) (*trust.Signer, bool, error) {
	found, err := s.Load(ctx)
	return found.Signer, found.Made, err
}

func caSecret(name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: storage, Name: name}, Type: CASecretType, Data: data}
}

// stored is a CA secret with a root made at now.
func stored(t *testing.T, now time.Time) (*corev1.Secret, *trust.Signer) {
	t.Helper()
	signer := catest.SelfSigned(t, now, catest.TrustDomain)
	return caSecret(CASecret, map[string][]byte{CACertKey: signer.RootsPEM(), CAKeyKey: catest.KeyPEM(t, signer.Key())}), signer
}

// same insists that the stored root is the loaded one.
func (s *store) same(t *testing.T, signer *trust.Signer) {
	t.Helper()
	secret, err := s.Tracker().Get(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, storage, CASecret)
	if err != nil {
		t.Fatal(err)
	}
	data := secret.(*corev1.Secret).Data
	kept, err := trust.NewSigner(time.Now(), trust.Pieces{Cert: trust.Piece{PEM: data["ca-cert.pem"]}, Key: trust.Piece{PEM: data["ca-key.pem"]},
		Roots: trust.Piece{PEM: data["ca-cert.pem"]}})
	if err != nil || !kept.Cert().Equal(signer.Cert()) {
		t.Errorf("the root that is stored is not the one in use: %v", err)
	}
}

func TestFixedNames(t *testing.T) { // compatibility 3.1, 3.2
	for got, want := range map[string]string{
		CASecret: "istio-ca-secret", string(CASecretType): "istio.io/ca-root", CACertKey: "ca-cert.pem", CAKeyKey: "ca-key.pem",
		PluggedSecret: "cacerts", PluggedChainKey: "cert-chain.pem", PluggedRootKey: "root-cert.pem", LeaseName: "istio-citadel",
		readOnlyLimit.String(): "20m0s", readOnlyWait.String(): "5s",
	} {
		if got != want {
			t.Errorf("a fixed name is %q, must be %q", got, want)
		}
	}
}

func TestRootIsMadeWhenThereIsNone(t *testing.T) { // compatibility 3.1
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		signer, made, err := s.selfSigned().load(t.Context())
		if err != nil || !made {
			t.Fatalf("made %v, error %v", made, err)
		}
		s.same(t, signer)
		secret, err := s.CoreV1().Secrets(storage).Get(t.Context(), CASecret, metav1.GetOptions{})
		if err != nil || secret.Type != CASecretType || len(secret.Data) != 2 {
			t.Errorf("stored as %s with %d keys (%v)", secret.Type, len(secret.Data), err)
		}
		if len(s.told) > 0 {
			t.Errorf("told %v", s.told)
		}
		again, made, err := s.selfSigned().load(t.Context())
		if err != nil || made || !again.Cert().Equal(signer.Cert()) {
			t.Errorf("after a restart: made %v, error %v", made, err)
		}
	})
}

// TestLoserLoadsTheWinners: AlreadyExists is no failure (complaint 8).
func TestLoserLoadsTheWinners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		winners, winner := stored(t, time.Now())
		s := newStore()
		s.PrependReactor("create", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if err := s.Tracker().Add(winners); err != nil {
				t.Error(err)
			}
			return false, nil, nil
		})
		signer, made, err := s.selfSigned().load(t.Context())
		if err != nil || made || !signer.Cert().Equal(winner.Cert()) {
			t.Fatalf("made %v, error %v", made, err)
		}
		if s.calls("create") != 1 || s.calls("update")+s.calls("delete") != 0 {
			t.Errorf("%d creates, and more", s.calls("create"))
		}
	})
}

// TestManyReplicasEndWithOneRoot, however they are interleaved.
func TestManyReplicasEndWithOneRoot(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			var mu sync.Mutex
			var winners int
			var running sync.WaitGroup
			for range 5 {
				running.Go(func() {
					signer, made, err := s.selfSigned().load(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					s.same(t, signer)
					mu.Lock()
					defer mu.Unlock()
					if made {
						winners++
					}
				})
			}
			if running.Wait(); winners != 1 {
				t.Errorf("%d replicas made the root", winners)
			}
		})
	}
}

// TestFailureIsNoAbsence: nothing is made while the API server has not said
// that there is nothing, and every failure is told.
func TestFailureIsNoAbsence(t *testing.T) { // compatibility 9, complaints 7 and 8
	for name, failure := range failures() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				secret, want := stored(t, time.Now())
				s := newStore(secret).fail("get", 3, failure)
				begun := time.Now()
				signer, made, err := s.selfSigned().load(t.Context())
				if err != nil || made || !signer.Cert().Equal(want.Cert()) {
					t.Fatalf("made %v, error %v", made, err)
				}
				s.untouched(t)
				if took := time.Since(begun); took != 3500*time.Millisecond {
					t.Errorf("three waits took %s, want 0.5 s, 1 s and 2 s", took)
				}
				if len(s.told) != 3 || !errors.Is(s.told[0], failure) || !strings.HasPrefix(s.told[0].Error(), "read Secret istio-system/istio-ca-secret: ") {
					t.Errorf("told %v", s.told)
				}
			})
		})
	}
}

// TestNoRootThatIsNotStored: the ancestor went on with a root in memory, and
// its restart was an outage.
func TestNoRootThatIsNotStored(t *testing.T) { // compatibility 9, complaint 7
	for name, failure := range failures() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore().fail("create", 4, failure)
				signer, made, err := s.selfSigned().load(t.Context())
				if err != nil || !made {
					t.Fatalf("made %v, error %v", made, err)
				}
				s.same(t, signer)
				if len(s.told) != 4 || !errors.Is(s.told[3], failure) || !strings.HasPrefix(s.told[0].Error(), "create Secret istio-system/istio-ca-secret: ") {
					t.Errorf("told %v", s.told)
				}

				s = newStore().fail("create", 1<<30, failure)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				signer, made, err = s.selfSigned().load(ctx)
				if signer != nil || made || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "istio-ca-secret") {
					t.Errorf("a signer: %v, made %v, error %v", signer != nil, made, err)
				}
				if n := s.calls("create"); n < 200 || n > 260 {
					t.Errorf("%d attempts in an hour", n)
				}
			})
		})
	}
}

// TestStoredThoughTheAnswerWasLost: what the API server took is the root.
func TestStoredThoughTheAnswerWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		lost := false
		s.PrependReactor("create", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if lost {
				return false, nil, nil
			}
			lost = true
			if err := s.Tracker().Add(a.(clienttesting.CreateAction).GetObject()); err != nil {
				t.Error(err)
			}
			return true, nil, context.DeadlineExceeded
		})
		signer, made, err := s.selfSigned().load(t.Context())
		if err != nil || made {
			t.Fatalf("made %v, error %v", made, err)
		}
		s.same(t, signer)
	})
}

func TestReadOnlyWaits(t *testing.T) { // compatibility 3.1
	synctest.Test(t, func(t *testing.T) {
		secret, want := stored(t, time.Now())
		s := newStore().fail("get", 2, errBroken)
		load := s.selfSigned()
		load.ReadOnly = true
		time.AfterFunc(12*time.Minute, func() {
			if err := s.Tracker().Add(secret); err != nil {
				t.Error(err)
			}
		})
		begun := time.Now()
		signer, made, err := load.load(t.Context())
		if err != nil || made || !signer.Cert().Equal(want.Cert()) {
			t.Fatalf("made %v, error %v", made, err)
		}
		if took := time.Since(begun); took < 12*time.Minute || took > 12*time.Minute+5*time.Second {
			t.Errorf("took %s", took)
		}
		if n := s.calls("get"); n < 144 || n > 147 {
			t.Errorf("looked %d times in 12 minutes, want every 5 s", n)
		}
		s.untouched(t)
	})
}

func TestReadOnlyGivesUp(t *testing.T) { // compatibility 3.1
	for name, failure := range map[string]error{"absent": nil, "unreadable": apierrors.NewForbidden(secrets, CASecret, errBroken)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				if failure != nil {
					s.fail("get", 1<<30, failure)
				}
				load := s.selfSigned()
				load.ReadOnly = true
				begun := time.Now()
				signer, _, err := load.load(t.Context())
				if took := time.Since(begun); signer != nil || took != 20*time.Minute {
					t.Errorf("after %s: a signer: %v", took, signer != nil)
				}
				if err == nil || !strings.Contains(err.Error(), "istio-system/istio-ca-secret: the CA secret has not appeared in 20m0s") {
					t.Errorf("error %v", err)
				}
				if len(s.told) == 0 || failure != nil && !errors.Is(s.told[0], failure) {
					t.Errorf("told %d times", len(s.told))
				}
				s.untouched(t)
			})
		})
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	for name, readOnly := range map[string]bool{"may make": false, "read only": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore().fail("get", 1<<30, errBroken)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				load := s.selfSigned()
				load.ReadOnly = readOnly
				begun := time.Now()
				_, _, err := load.load(ctx)
				if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took != time.Minute {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}

// TestDamagedCASecretStopsTheStart, by its name and key, and is left as it is:
// a second root would be an outage.
func TestDamagedCASecretStopsTheStart(t *testing.T) {
	root := func(edit func(*x509.Certificate)) func(*testing.T, time.Time, map[string][]byte) {
		return func(t *testing.T, now time.Time, data map[string][]byte) {
			i := catest.Root(t, now, catest.Spec{Name: "root", Edit: edit})
			data[CACertKey], data[CAKeyKey] = i.PEM(), catest.KeyPEM(t, i.Key)
		}
	}
	put := func(key string, value []byte) func(*testing.T, time.Time, map[string][]byte) {
		return func(_ *testing.T, _ time.Time, data map[string][]byte) { data[key] = value }
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, time.Time, map[string][]byte)
		text   string
	}{
		"no data":            {func(_ *testing.T, _ time.Time, d map[string][]byte) { clear(d) }, "key ca-cert.pem: is missing or empty"},
		"no certificate":     {put(CACertKey, nil), "key ca-cert.pem: is missing or empty"},
		"no key":             {put(CAKeyKey, nil), "key ca-key.pem: is missing or empty"},
		"certificate broken": {put(CACertKey, []byte("x")), "key ca-cert.pem: holds no PEM certificate"},
		"key broken":         {put(CAKeyKey, []byte("x")), "key ca-key.pem: holds no PEM private key"},
		"key of another": {func(t *testing.T, _ time.Time, d map[string][]byte) {
			d[CAKeyKey] = catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "other"))
		}, "key ca-key.pem: the cert does not match the key"},
		"expired":       {root(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }), "key ca-cert.pem: expired at"},
		"not yet valid": {root(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(2 * time.Hour) }), "key ca-cert.pem: is not valid before"},
		"no CA":         {root(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }), "is no CA"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				secret, _ := stored(t, time.Now())
				c.damage(t, time.Now(), secret.Data)
				s := newStore(secret)
				signer, _, err := s.selfSigned().load(t.Context())
				if signer != nil || err == nil || !strings.Contains(err.Error(), "Secret istio-system/istio-ca-secret key ") || !strings.Contains(err.Error(), c.text) {
					t.Errorf("a signer: %v, error %v, want …%s…", signer != nil, err, c.text)
				}
				if s.untouched(t); len(s.told) > 0 || s.calls("get") != 1 {
					t.Errorf("tried again: told %v", s.told)
				}
			})
		})
	}
}

// TestAncestorsCASecretLoads: RSA, PKCS#1, two keys (Citadel 0.8 to 1.4).
func TestAncestorsCASecretLoads(t *testing.T) { // compatibility 3.1
	synctest.Test(t, func(t *testing.T) {
		root := catest.Citadel14Root(t, time.Now(), catest.TrustDomain)
		key, err := trust.MarshalLegacyKey(root.Key)
		if err != nil {
			t.Fatal(err)
		}
		s := newStore(caSecret(CASecret, map[string][]byte{CACertKey: root.PEM(), CAKeyKey: key}))
		signer, made, err := s.selfSigned().load(t.Context())
		if err != nil || made || !signer.Cert().Equal(root.Cert) {
			t.Fatalf("made %v, error %v", made, err)
		}
		s.untouched(t)
	})
}
