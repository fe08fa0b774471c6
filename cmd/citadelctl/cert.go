package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"citadel/cmd/citadelctl/inspect"
)

func newCertCommand() *cobra.Command {
	cmd := newGroup("cert", "Look at certificates", newInspectCommand())
	cmd.Example = "  citadelctl cert inspect cert-chain.pem"
	return cmd
}

// inspectFlags are what cert inspect is told.
type inspectFlags struct {
	output
	clusterFlags
	rootCert string
}

func newInspectCommand() *cobra.Command {
	f := &inspectFlags{}
	cmd := &cobra.Command{
		Use:   "inspect FILE | - | secret/NAMESPACE/NAME",
		Short: "Say what a certificate is, and everything that is wrong with it",
		Long: `inspect says what certificates are, and everything that is wrong with them as SPIFFE
certificates and as a chain to their roots.

A FILE holds a chain, the workload's or CA's certificate first, or roots, in PEM or DER; a
private key beside them is compared, and never shown. - is standard input. Of a Secret, it
looks at cert-chain.pem, root-cert.pem and key.pem, at ca-cert.pem and ca-key.pem, or at
tls.crt, tls.key and ca.crt. Without --root-cert, the roots that come with it are believed.`,
		Example: `  citadelctl cert inspect /etc/certs/cert-chain.pem --root-cert /etc/certs/root-cert.pem
  citadelctl cert inspect secret/default/istio.sleep
  citadelctl cert inspect secret/istio-system/istio-ca-secret -o json
  openssl s_client -connect web:443 -showcerts </dev/null | citadelctl cert inspect -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, fmt.Errorf("give one FILE, - or secret/NAMESPACE/NAME, got %q", args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := plainFlags(cmd)
	flags.StringVar(&f.rootCert, "root-cert", "", "`file` of the roots to verify by, PEM")
	f.output.addTo(flags)
	f.output.complete(cmd)
	f.clusterFlags.addTo(flags)
	return cmd
}

func (f *inspectFlags) run(cmd *cobra.Command, source string) error {
	if err := f.output.validate(); err != nil {
		return usageError(cmd, err)
	}
	roots, err := readRoots(f.rootCert)
	if err != nil {
		return err
	}
	material, err := f.material(cmd, source)
	if err != nil {
		return err
	}
	now := time.Now()
	report := inspect.Inspect(now, material, roots)
	err = f.output.write(cmd.OutOrStdout(), struct {
		meta
		inspect.Report
	}{newMeta("CertificateInspection", now), report}, func(w io.Writer) error {
		return writeInspection(w, now, report)
	})
	if err == nil && !report.Right {
		return errWrong
	}
	return err
}

func (f *inspectFlags) material(cmd *cobra.Command, source string) (inspect.Material, error) {
	if secret, ok := strings.CutPrefix(source, "secret/"); ok {
		namespace, name, ok := strings.Cut(secret, "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			return inspect.Material{}, usageError(cmd, fmt.Errorf("%q: write secret/NAMESPACE/NAME, or ./%s for a file", source, source))
		}
		return f.fromSecret(cmd.Context(), namespace, name)
	}
	if source == "-" {
		text, err := readInput(cmd.Context(), cmd.InOrStdin(), "standard input")
		if err != nil {
			return inspect.Material{}, err
		}
		return inspect.ParseFile("standard input", text)
	}
	text, err := readFile(source)
	if err != nil {
		return inspect.Material{}, err
	}
	return inspect.ParseFile(source, text)
}

func (f *inspectFlags) fromSecret(ctx context.Context, namespace, name string) (inspect.Material, error) {
	cluster, err := f.connect()
	if err != nil {
		return inspect.Material{}, err
	}
	secret, err := cluster.secret(ctx, namespace, name)
	if err != nil {
		return inspect.Material{}, err
	}
	return inspect.ParseSecret(secret)
}
