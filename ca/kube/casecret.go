package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
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

// SelfSigned is a root of our own making, kept in CASecret.
type SelfSigned struct {
	Client    kubernetes.Interface
	Namespace string
	// Root is what the root is like when there is none yet.
	Root trust.SelfSigned
	// ReadOnly waits for the CA secret and never makes it.
	ReadOnly bool
	// MayMake says why no root may be made now, if it may not. Required.
	MayMake func(context.Context) error
	// Tell hears why another attempt is needed. Required.
	Tell func(error)
}

// Load returns the root in the CA secret. It makes one only when the API
// server says that there is none, and only by a create, so that of many
// replicas one wins and the others load what it made; and not while another
// replica leads, which has the root that was there: peers would not trust one
// another. Every other failure to
// reach the API server is told and tried again until ctx ends: there is never
// a root that is not stored. A CA secret whose content is wrong is an error
// and is left as it is.
func (s SelfSigned) Load(ctx context.Context) (signer *trust.Signer, made bool, err error) {
	if s.ReadOnly {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, readOnlyLimit, fmt.Errorf("the CA secret has not appeared in %s", readOnlyLimit))
		defer cancel()
	}
	wait := firstWait
	lease := leaseSight{client: s.Client, namespace: s.Namespace}
	for {
		signer, made, err = s.attempt(ctx, &lease)
		if !errors.Is(err, errAgain) {
			return signer, made, err
		}
		s.Tell(err)
		if s.ReadOnly {
			wait = readOnlyWait
		}
		if err := pause(ctx, wait); err != nil {
			return nil, false, fmt.Errorf("load %s: %w", s.name(), err)
		}
		wait = min(2*wait, lastWait)
	}
}

// errAgain marks what another attempt may mend.
var errAgain = errors.New("trying again")

func again(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errAgain)
}

func (s SelfSigned) name() string { return "Secret " + s.Namespace + "/" + CASecret }

func (s SelfSigned) attempt(ctx context.Context, lease *leaseSight) (*trust.Signer, bool, error) {
	secret, err := s.Client.CoreV1().Secrets(s.Namespace).Get(ctx, CASecret, metav1.GetOptions{})
	switch {
	case err == nil:
		signer, err := s.parse(secret)
		return signer, false, err
	case !apierrors.IsNotFound(err):
		return nil, false, again("read %s: %w", s.name(), err)
	case s.ReadOnly:
		return nil, false, again("wait until %s can be loaded: this replica does not make it", s.name())
	}
	leads, err := lease.holder(ctx)
	switch {
	case err != nil:
		return nil, false, again("see whether another replica has the root of %s: %w", s.name(), err)
	case leads != "":
		return nil, false, again("there is no %s, and replica %s has a root already: restore the Secret that the root was in from a backup, "+
			"or stop every replica for %s to begin with a new root", s.name(), leads, stillTime)
	}
	if err := s.MayMake(ctx); err != nil {
		return nil, false, again("make %s: %w", s.name(), err)
	}
	return s.create(ctx)
}

func (s SelfSigned) create(ctx context.Context) (*trust.Signer, bool, error) {
	signer, err := trust.NewSelfSigned(time.Now(), s.Root)
	if err != nil {
		return nil, false, err
	}
	key, err := trust.MarshalKey(signer.Key())
	if err != nil {
		return nil, false, err
	}
	_, err = s.Client.CoreV1().Secrets(s.Namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: CASecret},
		Type:       CASecretType,
		Data:       map[string][]byte{CACertKey: signer.RootsPEM(), CAKeyKey: key},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		return signer, true, nil
	case apierrors.IsAlreadyExists(err):
		return nil, false, again("another replica made %s first", s.name())
	}
	return nil, false, again("create %s: %w", s.name(), err)
}

func (s SelfSigned) parse(secret *corev1.Secret) (*trust.Signer, error) {
	cert := piece(secret, CACertKey)
	return trust.NewSigner(time.Now(), trust.Pieces{Cert: cert, Key: piece(secret, CAKeyKey), Roots: cert})
}

// ErrNotKnown says that the API server could not say.
var ErrNotKnown = errors.New("the API server does not say")

// HoldsRoot tells whether the CA secret still holds the root in use and its
// key: nil if it does, ErrNotKnown if the API server could not say.
func HoldsRoot(ctx context.Context, client kubernetes.Interface, namespace string, root *x509.Certificate) error {
	secret, err := client.CoreV1().Secrets(namespace).Get(ctx, CASecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s/%s is gone", namespace, CASecret)
	}
	if err != nil {
		return fmt.Errorf("read Secret %s/%s: %w: %w", namespace, CASecret, ErrNotKnown, err)
	}
	certs, err := trust.ParseCertificates(secret.Data[CACertKey])
	if err != nil {
		return fmt.Errorf("%s %w", piece(secret, CACertKey).Name, err)
	}
	if !certs[0].Equal(root) {
		return fmt.Errorf("%s is another certificate: %s", piece(secret, CACertKey).Name, trust.Name(certs[0]))
	}
	if key, err := trust.ParseKey(secret.Data[CAKeyKey]); err != nil || !trust.SamePublicKey(root.PublicKey, key.Public()) {
		return fmt.Errorf("%s is not the key of %s", piece(secret, CAKeyKey).Name, CACertKey)
	}
	return nil
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

// ErrBothLayouts is told of a PluggedSecret that holds an authority twice.
var ErrBothLayouts = errors.New("holds both layouts")

// Plugged returns the pieces of the operator's own authority in PluggedSecret,
// in either layout, or false when there is no such Secret. Of both layouts one
// counts, and ErrBothLayouts is told. Failures to reach
// the API server are told and tried again until ctx ends: taking one for
// absence would make a root that nobody asked for.
func Plugged(ctx context.Context, client kubernetes.Interface, namespace string, tell func(error)) (trust.Pieces, bool, error) {
	wait := firstWait
	for {
		secret, err := client.CoreV1().Secrets(namespace).Get(ctx, PluggedSecret, metav1.GetOptions{})
		switch {
		case err == nil:
			if holds(secret, CACertKey) && holds(secret, corev1.TLSCertKey) {
				tell(fmt.Errorf("%s/%s %w: %v count, %v do not", namespace, PluggedSecret, ErrBothLayouts, pluggedKeys, pluggedTLSKeys))
			}
			return pluggedPieces(secret), true, nil
		case apierrors.IsNotFound(err):
			return trust.Pieces{}, false, nil
		}
		tell(again("look for Secret %s/%s: %w", namespace, PluggedSecret, err))
		if err := pause(ctx, wait); err != nil {
			return trust.Pieces{}, false, fmt.Errorf("look for Secret %s/%s: %w", namespace, PluggedSecret, err)
		}
		wait = min(2*wait, lastWait)
	}
}

// The two layouts of PluggedSecret: Istio's, and cert-manager's, whose chain is
// in tls.crt.
var (
	pluggedKeys    = []string{CACertKey, CAKeyKey, PluggedChainKey, PluggedRootKey}
	pluggedTLSKeys = []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, "ca.crt"}
)

func holds(secret *corev1.Secret, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { _, ok := secret.Data[key]; return ok })
}

// pluggedPieces prefers the four .pem names. Without any known key all of them
// are named: the operator may have chosen others.
func pluggedPieces(secret *corev1.Secret) trust.Pieces {
	if holds(secret, corev1.TLSCertKey) && !holds(secret, CACertKey) {
		return trust.Pieces{
			Cert:  piece(secret, corev1.TLSCertKey),
			Key:   piece(secret, corev1.TLSPrivateKeyKey),
			Roots: piece(secret, "ca.crt"),
		}
	}
	pieces := trust.Pieces{
		Cert:  piece(secret, CACertKey),
		Key:   piece(secret, CAKeyKey),
		Chain: piece(secret, PluggedChainKey),
		Roots: piece(secret, PluggedRootKey),
	}
	if !holds(secret, slices.Concat(pluggedKeys, pluggedTLSKeys)...) {
		pieces.Cert.Name += fmt.Sprintf(" (there is none of %v, nor of %v)", pluggedKeys, pluggedTLSKeys)
	}
	return pieces
}

func piece(secret *corev1.Secret, key string) trust.Piece {
	return trust.Piece{Name: fmt.Sprintf("Secret %s/%s key %s", secret.Namespace, secret.Name, key), PEM: secret.Data[key]}
}
