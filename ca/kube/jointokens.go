package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"citadel/ca/authn"
)

// JoinTokenType is the type of the Secrets that hold join tokens: one each,
// called JoinTokenPrefix and the token's ID, in the storage namespace.
const (
	JoinTokenType   corev1.SecretType = "citadel.io/join-token"
	JoinTokenPrefix string            = "istio-citadel-join-"
)

const (
	joinTokenLabel = "citadel.io/join-token"
	joinTokenKey   = "token.json"
)

// JoinTokens keeps join tokens in Secrets, and what uses one counts once
// however many replicas are asked: an update names the version that it read.
type JoinTokens struct {
	Client    kubernetes.Interface
	Namespace string
}

// Use is of authn.JoinTokens.
func (j JoinTokens) Use(ctx context.Context, id string, use func(*authn.JoinToken) (bool, error)) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		secret, token, err := j.get(ctx, id)
		if err != nil {
			return err
		}
		changed, err := use(&token)
		if err != nil || !changed {
			return err
		}
		if err := encodeJoinToken(secret, token); err != nil {
			return err
		}
		if _, err = j.Client.CoreV1().Secrets(j.Namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("count the use of join token %s: %w", id, err)
		}
		return nil
	})
}

func (j JoinTokens) get(ctx context.Context, id string) (*corev1.Secret, authn.JoinToken, error) {
	secret, err := j.Client.CoreV1().Secrets(j.Namespace).Get(ctx, JoinTokenPrefix+id, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, authn.JoinToken{}, authn.ErrNoJoinToken
	}
	if err != nil {
		return nil, authn.JoinToken{}, fmt.Errorf("read join token %s: %w", id, err)
	}
	token, err := decodeJoinToken(secret)
	return secret, token, err
}

// Create stores a new token.
func (j JoinTokens) Create(ctx context.Context, token authn.JoinToken) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: j.Namespace, Name: JoinTokenPrefix + token.ID,
		Labels: map[string]string{joinTokenLabel: "true"}}, Type: JoinTokenType}
	if err := encodeJoinToken(secret, token); err != nil {
		return err
	}
	if _, err := j.Client.CoreV1().Secrets(j.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("store join token %s in namespace %s: %w", token.ID, j.Namespace, err)
	}
	return nil
}

// List returns every token, and an error for those that are damaged.
func (j JoinTokens) List(ctx context.Context) ([]authn.JoinToken, error) {
	list, err := j.Client.CoreV1().Secrets(j.Namespace).List(ctx, metav1.ListOptions{LabelSelector: joinTokenLabel + "=true"})
	if err != nil {
		return nil, fmt.Errorf("list join tokens in namespace %s: %w", j.Namespace, err)
	}
	var tokens []authn.JoinToken
	var damaged []error
	for i := range list.Items {
		token, err := decodeJoinToken(&list.Items[i])
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		tokens = append(tokens, token)
	}
	return tokens, errors.Join(damaged...)
}

// Revoke deletes a token: nobody joins by it any more. It returns
// authn.ErrNoJoinToken when there is none.
func (j JoinTokens) Revoke(ctx context.Context, id string) error {
	err := j.Client.CoreV1().Secrets(j.Namespace).Delete(ctx, JoinTokenPrefix+id, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return authn.ErrNoJoinToken
	}
	if err != nil {
		return fmt.Errorf("delete join token %s: %w", id, err)
	}
	return nil
}

// Sweep deletes the tokens that expired more than keep ago. Until then they
// tell those that try them why they fail.
func (j JoinTokens) Sweep(ctx context.Context, now time.Time, keep time.Duration) error {
	tokens, err := j.List(ctx)
	failed := []error{err}
	for _, token := range tokens {
		if now.Sub(token.Expires) <= keep {
			continue
		}
		if err := j.Revoke(ctx, token.ID); err != nil && !errors.Is(err, authn.ErrNoJoinToken) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func encodeJoinToken(secret *corev1.Secret, token authn.JoinToken) error {
	text, err := json.Marshal(token)
	if err != nil {
		return fmt.Errorf("encode join token %s: %w", token.ID, err)
	}
	secret.Data = map[string][]byte{joinTokenKey: text}
	return nil
}

func decodeJoinToken(secret *corev1.Secret) (authn.JoinToken, error) {
	var token authn.JoinToken
	if err := json.Unmarshal(secret.Data[joinTokenKey], &token); err != nil || JoinTokenPrefix+token.ID != secret.Name || secret.Type != JoinTokenType {
		return authn.JoinToken{}, fmt.Errorf("no join token is in Secret %s/%s, whose name says so: delete it", secret.Namespace, secret.Name)
	}
	return token, nil
}
