package secretcontroller

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"citadel/ca"
)

// errForeign says that somebody else's Secret bears the name of ours.
var errForeign = errors.New("a Secret that is not Citadel's bears this name: it is left alone; " +
	"delete or rename it and the service account gets its certificate")

// errHeld says that the name is taken by what is on its way out.
var errHeld = errors.New("a Secret of this name is being deleted, and its finalizers hold it: " +
	"once they are gone the service account gets its certificate")

// blocked tells failures that signing again would not mend.
func blocked(err error) bool { return errors.Is(err, errForeign) || errors.Is(err, errHeld) }

// foreignRetry is how often to see whether a foreign Secret is gone: no watch
// of ours covers it.
const foreignRetry = 15 * time.Second

// reconcileAccount keeps the Secret of one service account right.
func (c *Controller) reconcileAccount(ctx context.Context, k key) (time.Duration, error) {
	account, lives := c.watch.account(k)
	secret := c.watch.secret(k)
	switch {
	case !c.watch.manages(k.namespace):
		c.ledge.forget(k)
		return 0, nil
	case !lives:
		c.ledge.forget(k)
		return 0, c.removeOrphan(ctx, k, secret)
	}
	want, err := c.want(account)
	if err != nil {
		c.ledge.fail(k, account, Verdict{}, err)
		c.observe(time.Now(), Observation{Object: "Secret", Name: k.namespace + "/" + SecretName(k.name), Action: Failed, Err: err}, account.reference())
		return 0, nil // the names will not change: a new service account is a new key
	}
	return c.keep(ctx, k, want, secret)
}

func (c *Controller) want(account Account) (Want, error) {
	name := SecretName(account.Name)
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return Want{}, fmt.Errorf("service account's name makes no name for a Secret: %s", problems[0])
	}
	id, err := ca.ServiceAccountID(c.set.Authority.TrustDomain(), account.Namespace, account.Name)
	if err != nil {
		return Want{}, err
	}
	return Want{Account: account, ID: id, DNSNames: c.set.Authority.DNSNames(id), Roots: c.roots, Rotation: c.set.Rotation}, nil
}

func (a Account) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "ServiceAccount", Namespace: a.Namespace, Name: a.Name, UID: a.UID}
}

// keep judges the Secret, and makes it anew where the verdict says so.
func (c *Controller) keep(ctx context.Context, k key, want Want, secret *corev1.Secret) (time.Duration, error) {
	now := time.Now()
	last, known := c.ledge.recall(k, want.Account)
	verdict := last.verdict
	if secret == nil || last.version != secret.ResourceVersion || !verdict.Keep(now) {
		verdict = Judge(now, secret, want)
	}
	if known && last.version != "" {
		verdict = verdict.after(last.verdict, now)
	}
	if verdict.Keep(now) {
		c.ledge.note(k, secret, want.Account, verdict)
		return until(verdict.RenewAt), nil
	}
	if wait := c.ledge.contention(k, verdict.Reason, now); wait > 0 {
		if last.err == nil { // that was told, and may say who it is
			c.tellOfQuarrel(k, now, Observation{Object: "Secret", Name: k.namespace + "/" + SecretName(k.name), Reason: verdict.Reason, Detail: verdict.Detail},
				want.Account.reference())
		}
		return wait, nil
	}
	if wait := c.ledge.penance(k, now); wait > 0 && !blocked(last.err) {
		return wait, nil
	}
	if verdict.Reason == Vanished && c.gone(ctx, want.Account) {
		return 0, nil // the watch brings the end of the account, or who came after it
	}
	if blocked(last.err) { // look before signing for nothing
		if _, err := c.existing(ctx, want); blocked(err) {
			return c.refuse(now, k, want, verdict, err)
		}
	}
	return c.renew(ctx, k, want, secret, verdict)
}

// until is the wait for a time; never zero, which would mean no wait but for
// events.
func until(t time.Time) time.Duration { return max(time.Until(t), time.Millisecond) }

func (c *Controller) renew(ctx context.Context, k key, want Want, secret *corev1.Secret, v Verdict) (time.Duration, error) {
	start := time.Now()
	written, fresh, action, err := c.write(ctx, want, secret)
	o := Observation{Object: "Secret", Name: k.namespace + "/" + SecretName(k.name), Action: action, Reason: v.Reason, Detail: v.Detail}
	switch {
	case err == nil && fresh.Reason != Right:
		c.ledge.repaired(k, fresh.Reason) // a quarrel, whatever began it
		err = fmt.Errorf("the Secret was stored otherwise than it was sent (%s): an admission webhook changes it", fresh.Detail)
	case err == nil:
		o.NotAfter, o.RenewAt = fresh.NotAfter, fresh.RenewAt
		c.ledge.wrote(k, written, want.Account, fresh, v.Reason)
		c.observe(start, o, want.Account.reference())
		return until(fresh.RenewAt), nil
	case overtaken(err):
		return 0, ignoreTerminating(err)
	case blocked(err):
		return c.refuse(start, k, want, v, err)
	}
	o.Err = err
	c.ledge.fail(k, want.Account, v, err)
	c.observe(start, o, want.Account.reference())
	return 0, err
}

// refuse tells that another Secret is in the way.
func (c *Controller) refuse(start time.Time, k key, want Want, v Verdict, err error) (time.Duration, error) {
	c.ledge.fail(k, want.Account, v, err)
	o := Observation{Object: "Secret", Name: k.namespace + "/" + SecretName(k.name), Action: Refused,
		Reason: Foreign, Detail: "another Secret bears the name", Err: err}
	if errors.Is(err, errHeld) {
		o.Reason, o.Detail = Held, "it is being deleted"
	}
	c.observe(start, o, want.Account.reference())
	return foreignRetry, nil
}

// overtaken tells failures that only mean that the world moved on while we
// looked at it: the watch brings what is there now.
func overtaken(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || terminating(err) || errors.Is(err, errAlreadyRight) || errors.Is(err, context.Canceled)
}

func terminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func ignoreTerminating(err error) error {
	if terminating(err) || errors.Is(err, errAlreadyRight) {
		return nil
	}
	return err
}

// errAlreadyRight says that the cache was behind: the Secret is as it must be.
var errAlreadyRight = errors.New("the Secret is right already")

// write issues and stores, and returns what the API server then holds with
// the verdict on it.
func (c *Controller) write(ctx context.Context, want Want, secret *corev1.Secret) (*corev1.Secret, Verdict, Action, error) {
	action := Replaced
	if secret == nil {
		action = Created
	}
	now := time.Now()
	var fresh material
	var written *corev1.Secret
	err := c.guarded(ctx, func(ctx context.Context) (err error) {
		if fresh, err = c.issue(now, want); err != nil {
			return err
		}
		written, action, err = c.store(ctx, want, secret, fresh)
		return err
	})
	if err != nil {
		return nil, Verdict{}, action, err
	}
	if fresh.in(written) {
		return written, fresh.verdict(want), action, nil
	}
	return written, Judge(now, written, want), action, nil // an admission webhook changed it
}

// store puts the material where it belongs, in one write. Where the cache was
// behind it goes by what the API server holds.
func (c *Controller) store(ctx context.Context, want Want, secret *corev1.Secret, fresh material) (*corev1.Secret, Action, error) {
	secrets := c.set.Client.CoreV1().Secrets(want.Account.Namespace)
	if secret == nil {
		written, err := secrets.Create(ctx, compose(nil, want.Account, fresh), metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return written, Created, wrapWrite("create", want, err)
		}
		secret, err = c.existing(ctx, want)
		if err != nil {
			return nil, Created, err
		}
	}
	if secret.StringData != nil {
		var err error
		if secret, err = c.whole(ctx, secret); err != nil {
			return nil, Replaced, wrapWrite("read", want, err)
		}
	}
	if held(secret) {
		return nil, Replaced, errHeld
	}
	if forLife(secret) {
		written, err := c.recreate(ctx, secret, want, fresh)
		if apierrors.IsAlreadyExists(err) {
			err = errHeld // the delete went through, and it is still there
		}
		return written, Replaced, err
	}
	written, err := secrets.Update(ctx, compose(secret, want.Account, fresh), metav1.UpdateOptions{})
	return written, Replaced, wrapWrite("update", want, err)
}

// whole reads a Secret of which the cache holds a part. Another version is a
// conflict: it must be judged first, and may be another's altogether.
func (c *Controller) whole(ctx context.Context, cached *corev1.Secret) (*corev1.Secret, error) {
	secret, err := c.set.Client.CoreV1().Secrets(cached.Namespace).Get(ctx, cached.Name, metav1.GetOptions{})
	if err == nil && (secret.UID != cached.UID || secret.ResourceVersion != cached.ResourceVersion) {
		err = apierrors.NewConflict(corev1.Resource("secrets"), cached.Name, errors.New("the cache is behind"))
	}
	return secret, err
}

// existing reads the Secret that a create ran into.
func (c *Controller) existing(ctx context.Context, want Want) (*corev1.Secret, error) {
	name := SecretName(want.Account.Name)
	secret, err := c.set.Client.CoreV1().Secrets(want.Account.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, wrapWrite("read", want, err)
	}
	token := secret.Type == corev1.SecretTypeServiceAccountToken
	if secret.Type != SecretType && (token || secret.Labels[ManagedByLabel] != ManagedBy) {
		return nil, errForeign // a type is for life: without our label it was never ours
	}
	if held(secret) {
		return nil, errHeld
	}
	if Judge(time.Now(), secret, want).Keep(time.Now()) {
		return nil, errAlreadyRight
	}
	return secret, nil
}

// forLife tells whether a Secret can only be replaced: its type and its being
// immutable never change.
func forLife(secret *corev1.Secret) bool {
	return secret.Type != SecretType || (secret.Immutable != nil && *secret.Immutable)
}

// held tells whether a Secret can neither be updated nor be replaced yet.
func held(secret *corev1.Secret) bool { return forLife(secret) && secret.DeletionTimestamp != nil }

// recreate replaces a Secret that cannot be updated.
func (c *Controller) recreate(ctx context.Context, old *corev1.Secret, want Want, m material) (*corev1.Secret, error) {
	kept := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Labels: old.Labels, Annotations: old.Annotations, OwnerReferences: old.OwnerReferences}}
	if old.Type == SecretType { // what others put beside ours; in another type it is no part of ours
		kept.Data = old.Data
	}
	next := compose(kept, want.Account, m)
	if size := next.Size(); size > corev1.MaxSecretSize {
		return nil, fmt.Errorf("replace immutable Secret %s/%s: with what others put there it would have %d bytes, too many to be made again",
			old.Namespace, old.Name, size)
	}
	if err := c.deleteSecret(ctx, old); err != nil {
		return nil, wrapWrite("delete", want, err)
	}
	written, err := c.set.Client.CoreV1().Secrets(old.Namespace).Create(ctx, next, metav1.CreateOptions{})
	return written, wrapWrite("create", want, err)
}

func (c *Controller) deleteSecret(ctx context.Context, secret *corev1.Secret) error {
	err := c.set.Client.CoreV1().Secrets(secret.Namespace).Delete(ctx, secret.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func wrapWrite(verb string, want Want, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s Secret %s/%s: %w", verb, want.Account.Namespace, SecretName(want.Account.Name), err)
}

// writeGrace is what a write under way has to end after a stop. One that is cut
// off may have been stored or not, and one that makes a Secret anew would leave
// none.
const writeGrace = 3 * time.Second

// outlive is a context with ctx's values that ends later than ctx by grace.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, func() { time.AfterFunc(grace, end) })
	return lasting, func() {
		release()
		end()
	}
}

// guarded runs a write within the time in which this process surely leads. A
// failure because that has passed is context.Canceled: another replica goes on.
func (c *Controller) guarded(ctx context.Context, write func(context.Context) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // none begins after a stop
	}
	lasting, end := outlive(ctx, writeGrace)
	defer end()
	limited, cancel, err := c.guard(lasting)
	if err != nil {
		return err
	}
	defer cancel()
	err = write(limited)
	if err == nil || limited.Err() == nil {
		return err
	}
	_, stillLeads, guardErr := c.guard(ctx)
	if guardErr != nil {
		return fmt.Errorf("%w: %w", err, guardErr)
	}
	stillLeads()
	return err
}

func (c *Controller) guard(ctx context.Context) (context.Context, context.CancelFunc, error) {
	t := c.term.Load()
	if t == nil {
		return nil, nil, context.Canceled
	}
	if t.guard == nil {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	return t.guard(ctx)
}

// gone tells whether a service account is surely no more, by the API server: a
// Secret that vanished may have gone with it, and one made for it again would be
// garbage at once.
func (c *Controller) gone(ctx context.Context, account Account) (gone bool) {
	_ = c.guarded(ctx, func(ctx context.Context) error { // what cannot be told is no end
		found, err := c.set.Client.CoreV1().ServiceAccounts(account.Namespace).Get(ctx, account.Name, metav1.GetOptions{})
		gone = apierrors.IsNotFound(err) || err == nil && found.UID != account.UID
		return err
	})
	return gone
}

// removeOrphan deletes our Secret of a service account that is gone. Garbage
// collection does so for Secrets with an owner; this is for those of the
// ancestor's making. That the account is gone is asked of the API server: a
// cache is no proof.
func (c *Controller) removeOrphan(ctx context.Context, k key, secret *corev1.Secret) error {
	if secret == nil || secret.Annotations[AccountAnnotation] != k.name {
		return nil
	}
	start := time.Now()
	gone := false
	err := c.guarded(ctx, func(ctx context.Context) error {
		_, err := c.set.Client.CoreV1().ServiceAccounts(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
		switch {
		case err == nil:
			return nil // its being made is on its way to the cache
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("look whether service account %s/%s is gone: %w", k.namespace, k.name, err)
		}
		gone = true
		return c.deleteSecret(ctx, secret)
	})
	if gone && !overtaken(err) {
		c.observe(start, Observation{Object: "Secret", Name: k.namespace + "/" + secret.Name, Action: Deleted,
			Reason: "service account gone", Err: err}, nil)
	}
	return err
}
