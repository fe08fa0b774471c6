package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"citadel/ca/kube"
	"citadel/integration/cluster"
	"citadel/secretcontroller"
)

// floor is what bare writes cost: of Secrets of the same size, in namespaces of
// their own, with citadel's account, so that authorization and fairness cost
// the same.
type floor struct {
	b       *bench
	client  kubernetes.Interface
	owners  []types.UID // of each namespace
	created int
	updated int
}

const (
	bareNamespace = "bare"
	// bareType keeps the floor's Secrets from citadel's eyes.
	bareType corev1.SecretType = "bench/bare"
)

func (b *bench) newFloor(ctx context.Context) (*floor, error) {
	cfg, err := kube.Config(b.kubeconfig, "citadel-bench")
	if err != nil {
		return nil, err
	}
	client, err := kube.Client(cfg)
	return &floor{b: b, client: client}, err
}

// room makes the namespaces for this many Secrets.
func (f *floor) room(ctx context.Context, n int) error {
	core := f.b.plane.Client.CoreV1()
	for i := len(f.owners); i*perNamespace < n; i++ {
		ns := namespace(bareNamespace, i*perNamespace)
		_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: ns, Labels: map[string]string{secretcontroller.OverrideLabel: "false"}}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		owner, err := core.ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		f.owners = append(f.owners, owner.UID)
	}
	return nil
}

// create makes n Secrets more, and tells how long that took.
func (f *floor) create(ctx context.Context, n int) (time.Duration, error) {
	first := f.created
	if err := f.room(ctx, first+n); err != nil {
		return 0, err
	}
	f.created += n
	return f.b.each(n, func(i int) error {
		_, err := f.client.CoreV1().Secrets(namespace(bareNamespace, first+i)).Create(ctx, f.secret(first+i, 'a'), metav1.CreateOptions{})
		return err
	})
}

// update changes n of the Secrets, each in its turn, and tells how long that
// took.
func (f *floor) update(ctx context.Context, n int) (time.Duration, error) {
	first := f.updated
	f.updated += n
	return f.b.each(n, func(i int) error {
		which, fill := (first+i)%f.created, byte('b'+(first+i)/f.created)
		_, err := f.client.CoreV1().Secrets(namespace(bareNamespace, which)).Update(ctx, f.secret(which, fill), metav1.UpdateOptions{})
		return err
	})
}

// secret is a Secret as citadel writes it, but for its content: P-256 key, leaf
// and root in size.
func (f *floor) secret(i int, fill byte) *corev1.Secret {
	text := func(n int) []byte { return []byte(strings.Repeat(string(fill), n)) }
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name(i),
			Labels:          map[string]string{secretcontroller.ManagedByLabel: "bench"},
			Annotations:     map[string]string{secretcontroller.AccountAnnotation: name(i)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "owner", UID: f.owners[i/perNamespace]}},
		},
		Type: bareType,
		Data: map[string][]byte{
			secretcontroller.KeyKey: text(241), secretcontroller.ChainKey: text(720), secretcontroller.RootsKey: text(700),
		},
	}
}

// turn is how long citadel runs before it is stopped for the floor.
const turn = time.Second

// against lets citadel and bare writes take turns until citadel is done, so
// that a machine that changes its speed and a store that grows slower change
// both; citadel is stopped by signal while the floor has its turn. Its time
// counts from its start.
func (b *bench) against(ctx context.Context, what string, c *cluster.Citadel, verb string, write func(context.Context, int) (time.Duration, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	var took, bare time.Duration
	writes := 0
	for done := false; !done; {
		begin := time.Now()
		settled, err := b.settled(ctx, c, turn)
		if err != nil {
			return err
		}
		took, done = took+time.Since(begin), settled
		n := max(b.n/10, b.writers)
		d, err := b.paused(c, func() (time.Duration, error) { return write(ctx, n) })
		if err != nil {
			return err
		}
		bare, writes = bare+d, writes+n
	}
	rate, floor := float64(b.n)/took.Seconds(), float64(writes)/bare.Seconds()
	b.add(what, fmt.Sprintf("%.1f s, %.0f/s", took.Seconds(), rate), fmt.Sprintf("%.0f/s bare %s", floor, verb),
		fmt.Sprintf("%.2f", rate/floor), "at least 0.8")
	return nil
}

// paused runs f while citadel is stopped.
func (b *bench) paused(c *cluster.Citadel, f func() (time.Duration, error)) (d time.Duration, err error) {
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Signal(syscall.SIGCONT)) }()
	return f()
}
