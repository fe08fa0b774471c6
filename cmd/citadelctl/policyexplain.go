package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

// explanationDocument is the form for programs.
type explanationDocument struct {
	meta
	partial
	mesh.Answer
}

// explainFlags are what policy explain is told.
type explainFlags struct {
	output
	meshFlags
	namespace, subset, endpoint string
	sidecar                     bool
}

func newExplainCommand() *cobra.Command {
	f := &explainFlags{}
	cmd := &cobra.Command{
		Use:   "explain CLIENT SERVER",
		Short: "Say whether a client can talk to a server, what decided, and what would mend it",
		Long: `explain says whether a client can talk to a server, what each side does and which object decided,
what else would have and why it did not, and what to beware of. For a conflict it gives the one
change that mends it: that was tried against the same rules before it is shown.

CLIENT is NAME.NAMESPACE, where NAME is that of a Pod, WorkloadEntry, Service, service account
or app; or NAMESPACE/SERVICE_ACCOUNT; or a SPIFFE ID. SERVER is HOST:PORT as the client would
call it, the port by its number or name at the Service; one that has a single port needs none.

It exits with 0 for OK and with 1 for CONFLICT, also where a few of many endpoints fail; with 4 when OK is said without objects that
you may not read.`,
		Example: `  citadelctl policy explain sleep.legacy httpbin.default:8000
  citadelctl policy explain web/api ratings.bookinfo:http -o json
  citadelctl policy explain kubelet.kube-system httpbin.default:8000 --client-sidecar=false
  citadelctl policy explain sleep.legacy httpbin.default:8000 -f objects.yaml --mesh-config mesh.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError(cmd, fmt.Errorf("give a CLIENT and a SERVER, got %q", args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
	}
	flags := plainFlags(cmd)
	flags.StringVarP(&f.namespace, "namespace", "n", "default", "`namespace` of a CLIENT that is written without one")
	flags.BoolVar(&f.sidecar, "client-sidecar", true, "whether the client has a sidecar; without it, as its workloads have")
	flags.StringVar(&f.subset, "subset", "", "`subset` of the server that a route has chosen")
	flags.StringVar(&f.endpoint, "endpoint", "", "`name` of the one Pod that is called; without it, the Service is judged by all of them")
	f.output.addTo(flags)
	f.output.complete(cmd)
	f.meshFlags.addTo(flags, true)
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command, client, server string) error {
	question, err := f.question(cmd, client, server)
	world, err := f.meshFlags.read(cmd, err, f.output.validate())
	if err != nil {
		return err
	}
	answer, err := world.Explain(world.now, question)
	if errors.Is(err, mesh.ErrUnknown) {
		return world.finish(cmd, codedError{exitNotFound, err})
	} else if err != nil {
		return world.finish(cmd, usageError(cmd, err))
	}
	answer.Warnings, world.warnings = append(answer.Warnings, world.warnings...), nil
	document := explanationDocument{newMeta("PolicyExplanation", world.now), partial{world.unread}, answer}
	err = f.output.write(cmd.OutOrStdout(), document, func(w io.Writer) error { return writeAnswer(w, answer) })
	if err == nil && !answer.Works() {
		err = errWrong
	}
	return world.finish(cmd, err)
}

// question reads the arguments; all that is wrong is told at once.
func (f *explainFlags) question(cmd *cobra.Command, client, server string) (q mesh.Question, err error) {
	var problems [3]error
	q.Client, problems[0] = mesh.ParseClient(client, f.namespace)
	q.Server, problems[1] = mesh.ParseServer(server)
	problems[2] = checkName("namespace", f.namespace, validation.IsDNS1123Label)
	q.Subset, q.Endpoint = f.subset, f.endpoint
	if cmd.Flags().Changed("client-sidecar") {
		q.Sidecar = &f.sidecar
	}
	return q, errors.Join(problems[:]...)
}

func writeAnswer(w io.Writer, a mesh.Answer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	separator := ":"
	if a.Verdict == policy.OK.String() && !a.Works() {
		separator = "" // OK but for …
	}
	fmt.Fprintf(t, "%s%s %s\n\n", a.Verdict, separator, printable(a.Sentence))
	if a.Shows != "" {
		row(t, "Shows", a.Shows)
	}
	row(t, "Server", a.ServerSide.Says+": "+a.ServerSide.Why)
	row(t, "Client", a.ClientSide.Says+": "+a.ClientSide.Why)
	whose := fmt.Sprintf("%s, Istio %s", a.Generation, a.Release)
	if a.Picked != "" {
		whose += " (picked: " + a.Picked + ")"
	}
	row(t, "Rules", whose)
	if len(a.Identities) > 0 {
		row(t, "Expects", "one of "+strings.Join(a.Identities, ", "))
	}
	if a.SNI != "" {
		row(t, "Asks for", "SNI "+a.SNI+alpnText(a.ALPN))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	writeShadowed(w, append(a.ServerSide.Shadowed, a.ClientSide.Shadowed...))
	items := func(title string, texts []string) {
		for i, text := range texts {
			if i == 0 {
				fmt.Fprintf(w, "\n%s:\n", title)
			}
			fmt.Fprintf(w, "  - %s\n", printable(text))
		}
	}
	const enough = 10 // of endpoints that are alike, mostly
	var warnings, failing []string
	for _, one := range a.Warnings {
		warnings = append(warnings, one.Code+": "+one.Message)
	}
	for i, one := range a.Failing {
		if i == enough {
			failing = append(failing, fmt.Sprintf("and %d more", len(a.Failing)-enough))
			break
		}
		failing = append(failing, fmt.Sprintf("%s: server %s by %s, client %s", one.Endpoint, one.Server, one.ServerBy, one.Client))
	}
	items("Endpoints that fail", failing)
	items("Warnings", warnings)
	items("Notes", a.Notes)
	return writeFix(w, a.Fix)
}

func alpnText(alpn []string) string {
	if len(alpn) == 0 {
		return ""
	}
	return ", ALPN " + strings.Join(alpn, " ")
}

func row(t io.Writer, name, value string) { fmt.Fprintf(t, "%s:\t%s\n", name, printable(value)) }

func writeShadowed(w io.Writer, all []mesh.Shadowed) {
	for i, s := range all {
		if i == 0 {
			fmt.Fprintln(w, "\nShadowed:")
		}
		says := ""
		if s.Says != "" {
			says = " (" + s.Says + ")"
		}
		fmt.Fprintf(w, "  - %s%s: %s\n", printable(s.Object), says, printable(s.Why))
	}
}

func writeFix(w io.Writer, fix *mesh.Fix) (err error) {
	if fix == nil {
		return nil
	}
	fmt.Fprintf(w, "\nFix: %s.\n", printable(fix.Text))
	for _, c := range fix.Changes {
		_, err = fmt.Fprintf(w, "  %s\n", printable(c.Command))
		if c.Line != "" {
			_, err = fmt.Fprintf(w, "  # so that the text of its key mesh has this line, in place of that of the same key:\n  %s\n", printable(c.Line))
		}
	}
	for _, pair := range fix.Breaks {
		_, err = fmt.Fprintf(w, "  It breaks %s.\n", printable(pair))
	}
	if len(fix.Also) > 0 {
		_, err = fmt.Fprintf(w, "  It changes others too: %s.\n", printable(strings.Join(fix.Also, ", ")))
	}
	return err
}
