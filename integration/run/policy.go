package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"citadel/integration/cluster"
)

// Policy is watched in the local control plane alone: in somebody's cluster only
// two namespaces are ours, and policy is of all.
const (
	// watching is deploy/ with the rights for it, and mesh what there is to ask
	// about.
	watching = "integration/run/deploy"
	mesh     = "integration/run/mesh.yaml"
	// strict is what a user is invited to apply.
	strict = "integration/run/strict.yaml"
	// reader is the service account of mesh that may see all of the policy.
	reader = "policy-reader"
)

// applyWatching puts the kinds of policy into the local control plane, and
// citadel with the rights to watch them.
func (d *demo) applyWatching(ctx context.Context) error {
	for _, folder := range []string{filepath.Join(d.deploy, "crds"), watching} {
		step("kubectl apply -k %s", folder)
		if _, err := d.plane.Kubectl(ctx, "apply", "-k", folder); err != nil {
			return err
		}
	}
	d.args = append([]string{"--policy", "--policy-readers", cluster.StorageNamespace + "/" + reader}, d.args...)
	return nil
}

// invite makes a small mesh, and says what to try with it.
func (d *demo) invite(ctx context.Context, citadel *cluster.Citadel) error {
	step("kubectl apply -f %s", mesh)
	if _, err := d.plane.Kubectl(ctx, "apply", "-f", mesh); err != nil {
		return err
	}
	step("mTLS policy is watched. Ask before and after an edit, in a second terminal and this folder:")
	ctl, kubectl := filepath.Join(d.bin, "citadelctl"), filepath.Join(d.bin, "controlplane")+" kubectl"
	question := ctl + " policy explain sleep.legacy httpbin.default:8000"
	roots, token := filepath.Join(d.dir, "root-cert.pem"), filepath.Join(d.dir, reader+".token")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(citadel.APIPort))
	say := func(lines ...string) { fmt.Fprintf(os.Stderr, "\n    %s\n\n", strings.Join(lines, "\n    ")) }
	say("export KUBECONFIG="+d.plane.Kubeconfig, question, kubectl+" apply -f "+strict, question)
	step("The same of the running citadel, as a service account that its --policy-readers names:")
	say("umask 077", kubectl+" create token "+reader+" -n "+cluster.StorageNamespace+" --audience istio-ca > "+token,
		kubectl+` get configmap istio-ca-root-cert -n default -o 'jsonpath={.data.root-cert\.pem}' > `+roots,
		question+" --citadel "+address+" --citadel-root-cert "+roots+" --citadel-token "+token)
	return nil
}
