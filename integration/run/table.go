package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"citadel/ca/trust"
	"citadel/integration/cluster"
	"citadel/secretcontroller"
)

// table waits for the Secrets, prints them, and fails unless each verifies.
func (d *demo) table(ctx context.Context, citadel *cluster.Citadel) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	step("waiting for their Secrets")
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "SECRET\tSPIFFE ID\tEXPIRES IN\tNEXT ROTATION\tVERIFIED")
	var wrong int
	for _, a := range accounts {
		secret, err := d.waitForSecret(ctx, citadel, a)
		if err != nil {
			return err
		}
		if err := d.waitForRoots(ctx, citadel, a.Namespace); err != nil {
			return err
		}
		row, err := d.inspect(ctx, secret, a)
		verified := "yes"
		if err != nil {
			wrong++
			verified = "NO: " + err.Error()
		}
		fmt.Fprintf(out, "%s/%s\t%s\t%s\t%s\t%s\n", secret.Namespace, secret.Name, row.id, inTime(row.notAfter), inTime(row.renewAt), verified)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d Secrets did not verify", wrong, len(accounts))
	}
	return nil
}

func inTime(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return "in " + time.Until(t).Round(time.Second).String()
}

func (d *demo) waitForSecret(ctx context.Context, citadel *cluster.Citadel, a secretcontroller.Account) (secret *corev1.Secret, err error) {
	name := secretcontroller.SecretName(a.Name)
	err = citadel.Poll(ctx, 20*time.Millisecond, "done with Secret "+a.Namespace+"/"+name, func() (bool, error) {
		secret, err = d.plane.Client.CoreV1().Secrets(a.Namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	return secret, err
}

func (d *demo) waitForRoots(ctx context.Context, citadel *cluster.Citadel, namespace string) error {
	return citadel.Poll(ctx, 20*time.Millisecond, "done with ConfigMap "+namespace+"/"+secretcontroller.RootsConfigMap, func() (bool, error) {
		_, err := d.roots(ctx, namespace)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// row is what the table shows of a Secret.
type row struct {
	id                spiffeid.ID
	notAfter, renewAt time.Time
}

// inspect verifies a Secret with go-spiffe, as a workload would, by the roots
// that the namespace was given; then by the controller's own judgement, which
// also knows the next rotation.
func (d *demo) inspect(ctx context.Context, secret *corev1.Secret, a secretcontroller.Account) (row, error) {
	svid, err := x509svid.Parse(secret.Data[secretcontroller.ChainKey], secret.Data[secretcontroller.KeyKey])
	if err != nil {
		return row{}, err
	}
	r := row{id: svid.ID, notAfter: svid.Certificates[0].NotAfter}
	want := fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", svid.ID.TrustDomain(), a.Namespace, a.Name)
	if svid.ID.String() != want {
		return r, fmt.Errorf("SPIFFE ID is not %s", want)
	}
	roots, err := d.roots(ctx, a.Namespace)
	if err != nil {
		return r, err
	}
	bundle := x509bundle.FromX509Authorities(svid.ID.TrustDomain(), roots)
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return r, err
	}
	sa, err := d.plane.Client.CoreV1().ServiceAccounts(a.Namespace).Get(ctx, a.Name, metav1.GetOptions{})
	if err != nil {
		return r, err
	}
	a.UID = sa.UID
	verdict := secretcontroller.Judge(time.Now(), secret, secretcontroller.Want{Account: a, ID: svid.ID,
		DNSNames: svid.Certificates[0].DNSNames, Roots: secretcontroller.NewRoots(roots, time.Time{}),
		Rotation: secretcontroller.DefaultRotation()})
	r.renewAt = verdict.RenewAt
	if verdict.Reason != secretcontroller.Right {
		return r, errors.New(verdict.Detail)
	}
	return r, nil
}

func (d *demo) roots(ctx context.Context, namespace string) ([]*x509.Certificate, error) {
	cm, err := d.plane.Client.CoreV1().ConfigMaps(namespace).Get(ctx, secretcontroller.RootsConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return trust.ParseCertificates([]byte(cm.Data[secretcontroller.RootsKey]))
}

// follow prints each change of the demonstration's Secrets until ctx ends.
func (d *demo) follow(ctx context.Context, citadel *cluster.Citadel) error {
	seen := map[string]string{}
	refreshed := time.Now()
	for {
		for _, a := range accounts {
			if err := d.printChange(ctx, a, seen); err != nil && ctx.Err() == nil {
				step("%v", err)
			}
		}
		if time.Since(refreshed) > tokenAge {
			if err := d.plane.RefreshToken(ctx, cluster.StorageNamespace, cluster.CitadelAccount, d.dir+"/citadel.kubeconfig"); err != nil {
				step("%v", err)
			}
			refreshed = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-citadel.Exited():
			return fmt.Errorf("citadel ended: %w", citadel.Wait())
		case <-time.After(time.Second):
		}
	}
}

func (d *demo) printChange(ctx context.Context, a secretcontroller.Account, seen map[string]string) error {
	name := secretcontroller.SecretName(a.Name)
	list, err := d.plane.Client.CoreV1().Secrets(a.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return err
	}
	for _, secret := range list.Items {
		key := a.Namespace + "/" + name
		before, known := seen[key]
		seen[key] = secret.ResourceVersion
		if !known || before == secret.ResourceVersion {
			continue
		}
		r, err := d.inspect(ctx, &secret, a)
		verified := "verified"
		if err != nil {
			verified = "NOT VERIFIED: " + err.Error()
		}
		fmt.Printf("%s  %s rotated: %s, expires %s, next rotation %s, %s\n", time.Now().Format(time.TimeOnly), key, r.id, inTime(r.notAfter), inTime(r.renewAt), verified)
	}
	return nil
}
