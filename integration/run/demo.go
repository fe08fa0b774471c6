package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/kube"
	"citadel/integration/cluster"
	"citadel/secretcontroller"
)

// accounts are the service accounts that the demonstration makes.
var accounts = []secretcontroller.Account{
	{Namespace: "default", Name: "sleep"},
	{Namespace: "default", Name: "httpbin"},
	{Namespace: "legacy", Name: "sleep"},
}

// demoNamespaces are the namespaces of accounts.
var demoNamespaces = []string{"default", "legacy"}

const (
	// patience bounds each wait for something that takes seconds.
	patience = 3 * time.Minute
	// tokenAge is how often citadel's token, good for a day, is replaced.
	tokenAge = time.Hour
)

// demo is the demonstration and what it has to put back.
type demo struct {
	kubeconfig, bin, deploy string
	once                    bool
	args                    []string

	dir   string
	plane *cluster.ControlPlane
	undo  []func(context.Context) error // in the order to do them backwards
}

func step(format string, args ...any) { fmt.Fprintf(os.Stderr, "==> "+format+"\n", args...) }

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "citadel-run-"); err != nil {
		return err
	}
	d.undo = append(d.undo, func(context.Context) error { return os.RemoveAll(d.dir) })
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	if err := d.connect(ctx); err != nil {
		return err
	}
	citadel, err := d.install(ctx)
	if err != nil {
		return err
	}
	if err := d.makeAccounts(ctx); err != nil {
		return err
	}
	if err := d.table(ctx, citadel); err != nil || d.once {
		return err
	}
	if d.kubeconfig == "" {
		if err := d.invite(ctx, citadel); err != nil {
			return err
		}
	}
	step("citadel runs; rotations follow. Ctrl-C stops it and cleans up.")
	return d.follow(ctx, citadel)
}

// connect has a cluster at hand.
func (d *demo) connect(ctx context.Context) (err error) {
	binary := filepath.Join(d.bin, "controlplane")
	if d.kubeconfig != "" {
		step("using the cluster of %s", d.kubeconfig)
		d.plane, err = cluster.Existing(d.kubeconfig, binary)
		return err
	}
	step("starting etcd, kube-apiserver and kube-controller-manager (state and logs in %s)", d.dir)
	log, err := os.Create(filepath.Join(d.dir, "controlplane.log"))
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own copy
	d.plane, err = cluster.Start(ctx, cluster.Options{Binary: binary, Dir: filepath.Join(d.dir, "cluster"), Log: log})
	if err != nil {
		text, _ := os.ReadFile(log.Name()) // for the message only
		return fmt.Errorf("%w\n%s", err, text)
	}
	d.undo = append(d.undo, func(context.Context) error { step("stopping the control plane"); return d.plane.Stop() })
	return nil
}

// install applies the manifests and runs citadel with the rights that these
// give it.
func (d *demo) install(ctx context.Context) (*cluster.Citadel, error) {
	if err := d.apply(ctx); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(d.dir, "citadel.kubeconfig")
	if err := d.plane.ServiceAccount(ctx, cluster.StorageNamespace, cluster.CitadelAccount, kubeconfig); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(d.dir, "citadel.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own copy
	step("starting citadel as service account %s/%s (log in %s)", cluster.StorageNamespace, cluster.CitadelAccount, log.Name())
	citadel, err := cluster.StartCitadel(cluster.Run{Binary: filepath.Join(d.bin, "citadel"), Kubeconfig: kubeconfig,
		Flags: append([]string{"--audit-log", filepath.Join(d.dir, "audit.log")}, d.args...), Stderr: log})
	if err != nil {
		return nil, err
	}
	d.undo = append(d.undo, func(context.Context) error { step("stopping citadel"); return citadel.Stop() })
	ready, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := citadel.Ready(ready); err != nil {
		text, _ := os.ReadFile(log.Name()) // for the message only
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return citadel, nil
}

// apply puts deploy/ into the cluster. The local control plane goes as a whole
// afterwards; from somebody's cluster everything that was not there is taken
// away again, and where another authority is at work nothing is begun.
func (d *demo) apply(ctx context.Context) error {
	if d.kubeconfig == "" {
		return d.applyWatching(ctx)
	}
	if err := d.tread(ctx); err != nil {
		return err
	}
	step("kubectl apply -k %s", d.deploy)
	_, err := d.plane.Kubectl(ctx, "apply", "-k", d.deploy)
	return err
}

// tread looks where it steps, and remembers what to take away.
func (d *demo) tread(ctx context.Context) error {
	// Other namespaces of somebody's cluster are none of our business.
	d.args = append([]string{"--listened-namespaces", strings.Join(demoNamespaces, ",")}, d.args...)
	_, err := d.plane.Client.AppsV1().Deployments(cluster.StorageNamespace).Get(ctx, "istio-citadel", metav1.GetOptions{})
	if err == nil {
		step("Citadel is installed there already: it stays")
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look whether Citadel is installed: %w", err)
	}
	for _, ns := range demoNamespaces {
		_, err := d.plane.Client.CoreV1().ConfigMaps(ns).Get(ctx, secretcontroller.RootsConfigMap, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("namespace %s has a ConfigMap %s, and there is no Citadel: another authority (istiod?) is at work in this cluster; "+
				"use a cluster without one", ns, secretcontroller.RootsConfigMap)
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("look for another authority: %w", err)
		}
	}
	_, err = d.plane.Client.CoreV1().Namespaces().Get(ctx, cluster.StorageNamespace, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for namespace %s: %w", cluster.StorageNamespace, err)
	}
	namespaceStays := err == nil
	d.undo = append(d.undo, func(ctx context.Context) error {
		return errors.Join(d.uninstall(ctx, namespaceStays), d.sweep(ctx))
	})
	return nil
}

// uninstall takes away what deploy/ and citadel brought.
func (d *demo) uninstall(ctx context.Context, namespaceStays bool) error {
	step("taking Citadel away again")
	if !namespaceStays {
		_, err := d.plane.Kubectl(ctx, "delete", "--ignore-not-found", "-k", d.deploy)
		return err
	}
	args := []string{"delete", "--ignore-not-found", "-n", cluster.StorageNamespace}
	for _, file := range []string{"rbac.yaml", "quota.yaml", "deployment.yaml", "service.yaml", "disruption.yaml", "networkpolicy.yaml"} {
		args = append(args, "-f", filepath.Join(d.deploy, file))
	}
	_, err := d.plane.Kubectl(ctx, args...)
	_, ownErr := d.plane.Kubectl(ctx, "delete", "--ignore-not-found", "-n", cluster.StorageNamespace,
		"secret/"+kube.CASecret, "configmap/"+secretcontroller.LegacyConfigMap, "lease/"+kube.LeaseName)
	return errors.Join(err, ownErr)
}

// sweep deletes what citadel made for the service accounts that were there
// before, in a cluster where there was no citadel.
func (d *demo) sweep(ctx context.Context) error {
	var errs []error
	for _, ns := range demoNamespaces {
		selector := metav1.ListOptions{LabelSelector: secretcontroller.ManagedByLabel + "=" + secretcontroller.ManagedBy}
		errs = append(errs,
			d.plane.Client.CoreV1().Secrets(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, selector),
			ignoreNotFound(d.plane.Client.CoreV1().ConfigMaps(ns).Delete(ctx, secretcontroller.RootsConfigMap, metav1.DeleteOptions{})))
	}
	return errors.Join(errs...)
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// makeAccounts makes the demonstration's namespaces and service accounts.
func (d *demo) makeAccounts(ctx context.Context) error {
	for _, a := range accounts {
		step("making service account %s/%s", a.Namespace, a.Name)
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.Namespace}}
		_, err := d.plane.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		if err := d.made(err, func(ctx context.Context) error {
			return d.plane.Client.CoreV1().Namespaces().Delete(ctx, a.Namespace, metav1.DeleteOptions{})
		}); err != nil {
			return fmt.Errorf("make namespace %s: %w", a.Namespace, err)
		}
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: a.Name}}
		_, err = d.plane.Client.CoreV1().ServiceAccounts(a.Namespace).Create(ctx, sa, metav1.CreateOptions{})
		if err := d.made(err, func(ctx context.Context) error {
			return d.plane.Client.CoreV1().ServiceAccounts(a.Namespace).Delete(ctx, a.Name, metav1.DeleteOptions{})
		}); err != nil {
			return fmt.Errorf("make service account %s/%s: %w", a.Namespace, a.Name, err)
		}
	}
	return nil
}

// made remembers, in an existing cluster, to delete what was not there.
func (d *demo) made(err error, undo func(context.Context) error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil && d.kubeconfig != "" {
		d.undo = append(d.undo, func(ctx context.Context) error { return ignoreNotFound(undo(ctx)) })
	}
	return err
}

// cleanUp undoes everything, the last first.
func (d *demo) cleanUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for i := len(d.undo) - 1; i >= 0; i-- {
		errs = append(errs, d.undo[i](ctx))
	}
	return errors.Join(errs...)
}
