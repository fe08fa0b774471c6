package tutorial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"citadel/integration/tutorial/wire"
)

// Step is a change of the mesh, and what comes of it.
type Step struct {
	Name  string // short, and another for each
	Say   string // to people, before it
	Edits []Edit
	Calls []Call // each is made until the answer is the expected one; those first that the edits change
}

// Edit is one command. YAML is applied; else the words are kubectl's, or where
// Host is set lines of shell on the host; Do does what Shown says.
type Edit struct {
	YAML    string
	Kubectl []string
	Refused string // what kubectl says: the edit is not to succeed
	Host    string
	Do      func(context.Context, *World) error
	Shown   string
}

// Call is one request by curl.
type Call struct {
	From string // NAME.NAMESPACE of a Deployment, with /CONTAINER for one not named as it is; or "host"
	URL  string
	Rows string // of the table of all cases that it plays; for readers alone

	// What is to come of it.
	Exit int    // curl's exit code
	Body string // part of it
	Wire wire.Sight
}

// limit is what a call may take until its answer is the expected one: the machine
// may do much else. How long it took is told.
const limit = 30 * time.Second

// Stage is where steps are shown.
type Stage struct {
	Out io.Writer
	// Pause waits for the audience before a step.
	Pause func(ctx context.Context) error
}

func (s Stage) say(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }

// Play does a step. The error says what came in place of what was expected.
func (w *World) Play(ctx context.Context, step Step, stage Stage) error {
	stage.say("\n== %s\n%s", step.Name, indent(step.Say, "   "))
	if stage.Pause != nil {
		if err := stage.Pause(ctx); err != nil {
			return err
		}
	}
	var edited time.Time
	for _, edit := range step.Edits {
		if err := w.edit(ctx, edit, stage); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
		edited = time.Now()
	}
	for _, call := range step.Calls {
		if err := w.call(ctx, call, edited, stage); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	return nil
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// edit carries out one edit.
func (w *World) edit(ctx context.Context, e Edit, stage Stage) error {
	switch {
	case e.Host != "":
		stage.say("%s", indent(e.Host, "   host# "))
		_, err := w.host.Shell(ctx, e.Host)
		return err
	case e.Do != nil:
		stage.say("%s", indent(e.Shown, "   $ "))
		return e.Do(ctx, w)
	}
	return w.editCluster(ctx, e, stage)
}

// editCluster carries out one of kubectl.
func (w *World) editCluster(ctx context.Context, e Edit, stage Stage) error {
	args := w.filledIn(e.Kubectl)
	if e.YAML != "" {
		file := filepath.Join(w.dir, "edit.yaml")
		if err := os.WriteFile(file, []byte(e.YAML), 0o600); err != nil {
			return err
		}
		args = []string{"apply", "-f", file}
		stage.say("   $ kubectl apply -f - <<EOF\n%s\n   EOF", indent(e.YAML, "   "))
	} else {
		stage.say("   $ kubectl %s", quoted(args))
	}
	_, err := w.kubectl(ctx, args...)
	if e.Refused == "" {
		return err
	}
	if err == nil || !strings.Contains(err.Error(), e.Refused) {
		return fmt.Errorf("kubectl %s: not refused because of %q: %v", quoted(args), e.Refused, err)
	}
	stage.say("   refused, as it should be: %s", e.Refused)
	return nil
}

// nodeAddressOfPods stands, in what kubectl is told, for the address by which pods
// see their node, and so the kubelet.
const nodeAddressOfPods = "NODE"

func (w *World) filledIn(args []string) (all []string) {
	for _, arg := range args {
		all = append(all, strings.ReplaceAll(arg, nodeAddressOfPods, w.gateway.String()))
	}
	return all
}

// answer is what came of a call.
type answer struct {
	exit   int
	status string
	body   string
	errors string
	wire   wire.Sight
}

// call makes a call until its answer is the expected one.
func (w *World) call(ctx context.Context, c Call, since time.Time, stage Stage) error {
	w.calls++
	mark := fmt.Sprintf("call-%d", w.calls)
	shown, run := w.curl(c, mark)
	stage.say("   %s\n   expected: %s", shown, c.expected())
	begin := time.Now()
	for {
		got, err := w.ask(ctx, c, mark, run)
		wrong := errors.Join(err, c.judge(got))
		if wrong == nil {
			stage.say("   => %s  (%s)", got.told(), after(since))
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("%s: in %s never as expected: %w", shown, limit, wrong)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// after says how long after an edit it is; nothing where there was none.
func after(edited time.Time) string {
	if edited.IsZero() {
		return "at once"
	}
	return fmt.Sprintf("%.1f s after the edit", time.Since(edited).Seconds())
}

// curl is the command of a call, for people and as it is run. The mark is what
// somebody on the wire looks for.
func (w *World) curl(c Call, mark string) (shown string, run func(context.Context) *exec.Cmd) {
	args := []string{"curl", "-s", "-S", "-k", "-m", "5", "-A", mark, "-w", `\n%{http_code}`, c.URL}
	if c.From == "host" {
		return "host# " + quoted(args), func(ctx context.Context) *exec.Cmd { return w.host.Command(ctx, args...) }
	}
	name, namespace, _ := strings.Cut(c.From, ".")
	namespace, container, other := strings.Cut(namespace, "/")
	if !other {
		container = name
	}
	command := append([]string{"exec", "-n", namespace, "deploy/" + name, "-c", container, "--"}, args...)
	return "$ kubectl " + quoted(command), func(ctx context.Context) *exec.Cmd { return w.plane.KubectlCommand(ctx, command...) }
}

// host is the one of the URL.
func (c Call) host() string {
	to, err := url.Parse(c.URL)
	if err != nil {
		return ""
	}
	return to.Hostname()
}

// remote is how kubectl tells the exit code of what it ran.
var remote = regexp.MustCompile(`command terminated with exit code (\d+)`)

// ask makes a call once.
func (w *World) ask(ctx context.Context, c Call, mark string, run func(context.Context) *exec.Cmd) (got answer, err error) {
	if err := w.wire.Forget(); err != nil {
		return got, err
	}
	var out, errs strings.Builder
	cmd := run(ctx)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	failed, is := errors.AsType[*exec.ExitError](err)
	if err != nil && !is {
		return got, err
	}
	got.errors = strings.TrimSpace(errs.String())
	if is {
		got.exit = failed.ExitCode()
		code := remote.FindStringSubmatch(got.errors)
		if code != nil {
			got.exit, _ = strconv.Atoi(code[1]) // digits
		} else if c.From != "host" {
			return got, fmt.Errorf("kubectl exec: %w: %s", err, got.errors)
		}
	}
	text := strings.TrimSpace(out.String())
	end := strings.LastIndexByte(text, '\n') + 1
	got.body, got.status = strings.TrimSpace(text[:end]), text[end:]
	got.wire, err = w.wire.Look(c.host(), mark, `"origin"`)
	return got, err
}

// judge says what is not as expected.
func (c Call) judge(got answer) error {
	var wrong []error
	differ := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if got.exit != c.Exit {
		differ("curl exits with %d, not %d: %s", got.exit, c.Exit, got.errors)
	}
	if c.Exit == 0 && got.status != "200" {
		differ("the status is %s: %.200s", got.status, got.body)
	}
	if !strings.Contains(got.body, c.Body) {
		differ("no %q in %.200q", c.Body, got.body)
	}
	if c.Wire != wire.Anything && got.wire != c.Wire {
		differ("on the wire is %s, not %s", got.wire, c.Wire)
	}
	return errors.Join(wrong...)
}

// expected is for people.
func (c Call) expected() string {
	if c.Exit != 0 {
		return fmt.Sprintf("curl's exit code %d", c.Exit)
	}
	return fmt.Sprintf("200, and on the wire %s", c.Wire)
}

// told is an answer for people.
func (a answer) told() string {
	if a.exit != 0 {
		message, _, _ := strings.Cut(a.errors, "\n")
		return fmt.Sprintf("exit code %d: %s", a.exit, message)
	}
	return fmt.Sprintf("%s %s; on the wire: %s", a.status, compact(a.body), a.wire)
}

// compact is JSON on one line, cut where it is long.
func compact(text string) string {
	var any json.RawMessage
	if json.Unmarshal([]byte(text), &any) == nil {
		if short, err := json.Marshal(any); err == nil {
			text = string(short)
		}
	}
	const most = 100
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// plain needs no quotes in a shell.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)

// quoted is a command as one would type it.
func quoted(args []string) string {
	var words []string
	for _, arg := range args {
		if !plain.MatchString(arg) {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
