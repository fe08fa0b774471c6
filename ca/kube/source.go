package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"citadel/ca/trust"
)

// The Secrets that hold an authority, and their keys.
const (
	CASecret                       = "istio-ca-secret"
	CASecretType corev1.SecretType = "istio.io/ca-root"
	CACertKey                      = "ca-cert.pem"
	CAKeyKey                       = "ca-key.pem"

	PluggedSecret   = "cacerts"
	PluggedChainKey = "cert-chain.pem"
	PluggedRootKey  = "root-cert.pem"
)

// The wait between attempts to read or make the CA secret.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = 15 * time.Second
	// readOnlyLimit is how long a replica that may not make the CA secret waits
	// for it; readOnlyWait is how often it looks.
	readOnlyLimit = 20 * time.Minute
	readOnlyWait  = 5 * time.Second
)

// Choice is which of the Secrets an authority may be in.
type Choice int

// The choices.
const (
	Either       Choice = iota // PluggedSecret where it exists, else CASecret
	OnlyPlugged                // PluggedSecret, and nothing else will do
	OnlyCASecret               // CASecret, whatever else there is
)

// Source finds an authority in the cluster, or makes a root of our own.
type Source struct {
	Client    kubernetes.Interface
	Namespace string
	Choice    Choice
	// Root is what the root is like when there is none yet.
	Root trust.SelfSigned
	// ReadOnly waits for the CA secret and never makes it.
	ReadOnly bool
	// Published are the roots that an authority of before has made known, those
	// that have ended too; none when there was none; ErrDamaged when nobody can
	// tell. Required.
	Published func(context.Context) ([]*x509.Certificate, error)
	// PublishedIn names the object that they are in, for people.
	PublishedIn string
	// MayMake says why no root may be made now, if it may not. Required.
	MayMake func(context.Context) error
	// Tell hears why another attempt is needed, and what is odd. Required.
	Tell func(error)
}

// Found is an authority, and the Secret that it is in.
type Found struct {
	*trust.Signer
	Secret string // its name
	Made   bool
}

// ErrOtherRoots is told while the signer that there is, or that could be made,
// is not trusted by those who know the published roots.
var ErrOtherRoots = errors.New("peers would not trust one another")

// ErrDamaged says that what is published holds no roots.
var ErrDamaged = errors.New("holds no roots")

// ErrNoSigner says that no Secret holds an authority, and none may be made.
var ErrNoSigner = errors.New("no signing cert has been specified")

// Load returns the authority of the Secret that counts. It makes a root only
// when the API server says that there is none and that none was ever made known,
// and only by a create, so that of many replicas one wins and the others load
// what it made: a second root would cut the mesh in two. For the same reason it
// does not fall back from a lost PluggedSecret on a root of before that no
// published one vouches for, unless that is the choice. Such trouble, and every
// failure to reach the API server, is told and tried again until ctx ends. A
// Secret whose content is wrong is an error, and is left as it is.
func (s Source) Load(ctx context.Context) (Found, error) {
	if s.ReadOnly && s.Choice != OnlyPlugged {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, readOnlyLimit, fmt.Errorf("the CA secret has not appeared in %s", readOnlyLimit))
		defer cancel()
	}
	wait := firstWait
	for {
		found, err := s.attempt(ctx)
		if !errors.Is(err, errAgain) {
			return found, err
		}
		s.Tell(err)
		if s.ReadOnly {
			wait = readOnlyWait
		}
		if err := pause(ctx, wait); err != nil {
			return Found{}, fmt.Errorf("load Secret %s: %w", s.name(CASecret), err)
		}
		wait = min(2*wait, lastWait)
	}
}

// errAgain marks what another attempt may mend.
var errAgain = errors.New("trying again")

func again(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errAgain)
}

func (s Source) name(secret string) string { return s.Namespace + "/" + secret }

// get returns a Secret, or nil when the API server says that there is none.
func (s Source) get(ctx context.Context, name string) (*corev1.Secret, error) {
	secret, err := s.Client.CoreV1().Secrets(s.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		return secret, nil
	case apierrors.IsNotFound(err):
		return nil, nil
	}
	return nil, again("read Secret %s: %w", s.name(name), err)
}

func (s Source) attempt(ctx context.Context) (Found, error) {
	if s.Choice != OnlyCASecret {
		secret, err := s.get(ctx, PluggedSecret)
		switch {
		case err != nil:
			return Found{}, err
		case secret != nil:
			return s.plugged(secret)
		case s.Choice == OnlyPlugged:
			return Found{}, ErrNoSigner
		}
	}
	secret, err := s.get(ctx, CASecret)
	if err != nil {
		return Found{}, err
	}
	if secret != nil {
		return s.selfSigned(ctx, secret)
	}
	return s.makeRoot(ctx)
}

func (s Source) plugged(secret *corev1.Secret) (Found, error) {
	if holds(secret, CACertKey) && holds(secret, corev1.TLSCertKey) {
		s.Tell(fmt.Errorf("%s %w: %v count, %v do not", s.name(PluggedSecret), ErrBothLayouts, pluggedKeys, pluggedTLSKeys))
	}
	signer, err := trust.NewSigner(time.Now(), pluggedPieces(secret))
	return Found{Signer: signer, Secret: PluggedSecret}, err
}

func (s Source) selfSigned(ctx context.Context, secret *corev1.Secret) (Found, error) {
	cert := piece(secret, CACertKey)
	signer, err := trust.NewSigner(time.Now(), trust.Pieces{Cert: cert, Key: piece(secret, CAKeyKey), Roots: cert})
	if err != nil {
		return Found{}, err
	}
	if s.Choice == Either {
		published, err := s.published(ctx)
		switch {
		case errors.Is(err, ErrDamaged):
			s.Tell(err) // and it is about to be mended
		case err != nil:
			return Found{}, err
		}
		if len(published) > 0 && !Vouch(published, signer, time.Now()) {
			return Found{}, again("%w: the root of Secret %s is not among those that are published (%s): "+
				"restore Secret %s if that was the CA; to sign with this root nevertheless, give --self-signed-ca",
				ErrOtherRoots, s.name(CASecret), names(published), s.name(PluggedSecret))
		}
	}
	return Found{Signer: signer, Secret: CASecret}, nil
}

// published are those roots made known that have not ended.
func (s Source) published(ctx context.Context) ([]*x509.Certificate, error) {
	published, err := s.Published(ctx)
	if err != nil {
		return nil, again("see what roots there were before: %w", err)
	}
	return slices.DeleteFunc(published, func(root *x509.Certificate) bool { return time.Now().After(root.NotAfter) }), nil
}

// Vouch tells whether those who trust these roots trust what the signer signs.
func Vouch(roots []*x509.Certificate, signer *trust.Signer, now time.Time) bool {
	_, err := signer.Cert().Verify(x509.VerifyOptions{CurrentTime: now, Roots: trust.Pool(roots), Intermediates: trust.Pool(signer.Chain()),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func names(certs []*x509.Certificate) string {
	var all []string
	for _, cert := range certs {
		all = append(all, trust.Name(cert))
	}
	return strings.Join(all, ", ")
}

// makeRoot makes the root of a mesh that never had one.
func (s Source) makeRoot(ctx context.Context) (Found, error) {
	if s.ReadOnly {
		return Found{}, again("wait until Secret %s can be loaded: this replica does not make it", s.name(CASecret))
	}
	published, err := s.published(ctx)
	if err != nil {
		return Found{}, err
	}
	if len(published) > 0 {
		return Found{}, again("%w: there is no Secret %s, and roots are published (%s): restore the Secret that their CA was in from a backup; "+
			"to begin with a new root, stop every replica and delete %s", ErrOtherRoots, s.name(CASecret), names(published), s.PublishedIn)
	}
	if err := s.MayMake(ctx); err != nil {
		return Found{}, again("make Secret %s: %w", s.name(CASecret), err)
	}
	signer, err := trust.NewSelfSigned(time.Now(), s.Root)
	if err != nil {
		return Found{}, err
	}
	key, err := trust.MarshalKey(signer.Key())
	if err != nil {
		return Found{}, err
	}
	_, err = s.Client.CoreV1().Secrets(s.Namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: CASecret},
		Type:       CASecretType,
		Data:       map[string][]byte{CACertKey: signer.RootsPEM(), CAKeyKey: key},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		return Found{Signer: signer, Secret: CASecret, Made: true}, nil
	case apierrors.IsAlreadyExists(err):
		return Found{}, again("another replica made Secret %s first", s.name(CASecret))
	}
	return Found{}, again("create Secret %s: %w", s.name(CASecret), err)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
