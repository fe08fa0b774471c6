package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"citadel/cmd/internal/daemon"
	"citadel/nodeagent"
)

// listenControl makes the control socket, in place of one that a dead agent
// left. Its owner and group may use it.
func listenControl(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("--control-socket: make its folder: %w: give another, or none by --control-socket=", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("--control-socket: another node_agent answers at %s", path)
	} else if info, statErr := os.Lstat(path); statErr == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("--control-socket: %s is no socket, and nothing of ours: move it away, or give another", path)
	} else if statErr == nil && errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path) // an error shows at once
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("--control-socket: %w: give another, or none by --control-socket=", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("--control-socket: %w", err), listener.Close())
	}
	return listener, nil
}

// controlLimit is what a question on the control socket may take.
const controlLimit = 10 * time.Second

// serveControl answers node_agent status and renew until ctx ends.
func serveControl(ctx context.Context, listener net.Listener, agent *nodeagent.Agent, now func() status) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(now()) // the client is gone: nobody to tell
	})
	mux.HandleFunc("POST /renew", func(http.ResponseWriter, *http.Request) { agent.Renew() })
	server := &http.Server{Handler: mux, ReadTimeout: controlLimit, WriteTimeout: controlLimit, MaxHeaderBytes: 4 << 10}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on --control-socket: %w", err)
	}
	return nil
}

// control asks the agent that runs.
func control(ctx context.Context, socket, method, path string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}, Timeout: controlLimit}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://node_agent"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent at %s: %w: is it running, and may you? (systemctl status istio-auth-node-agent)", socket, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	const most = 1 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the agent answers %s", resp.Status)
	}
	return body, err
}

// socketFlag asks at the socket that the agent's own environment names.
func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "control-socket", cmp.Or(os.Getenv("NODE_AGENT_CONTROL_SOCKET"), controlSocket), "`socket` of the agent")
}

func newStatus(stdout io.Writer) *cobra.Command {
	var socket, output string
	cmd := &cobra.Command{Use: "status", Short: "Show the running agent's certificate, last renewal, last error and next action", Args: noArguments,
		Long: "status asks the agent that runs. It exits with 1 when nobody answers, or there is no valid certificate.",
		Example: `  node_agent status
  node_agent status -o json`}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if output != "table" && output != "json" {
			return daemon.UsageError{Err: fmt.Errorf("--output: %q: use table or json", output)}
		}
		body, err := control(cmd.Context(), socket, http.MethodGet, "/status")
		if err != nil {
			return err
		}
		var s status
		if err := json.Unmarshal(body, &s); err != nil {
			return fmt.Errorf("the agent's answer: %w", err)
		}
		if output == "json" {
			_, err = stdout.Write(body)
		} else {
			err = show(stdout, s, time.Now())
		}
		if err == nil && !s.Valid(time.Now()) {
			err = errors.New("there is no valid certificate")
		}
		return err
	}
	return cmd
}

func show(w io.Writer, s status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, name+":\t"+format+"\n", args...) }
	at := func(when time.Time) string {
		if when.IsZero() {
			return "-"
		}
		d := when.Sub(now).Round(time.Second)
		if d <= 0 {
			return fmt.Sprintf("%s (%s ago)", when.UTC().Format(time.RFC3339), -d)
		}
		return fmt.Sprintf("%s (in %s)", when.UTC().Format(time.RFC3339), d)
	}
	line("Identity", "%s", s.Identity)
	line("Serial", "%s", s.Serial)
	line("Valid from", "%s", at(s.NotBefore))
	line("Valid until", "%s", at(s.NotAfter))
	line("Roots", "%d", s.Roots)
	line("CA", "%s", s.CA)
	line("Last renewal", "%s", at(s.LastRenewal))
	if s.RenewedBy != "" {
		line("  by", "%s", s.RenewedBy)
	}
	line("Next renewal", "%s", at(s.NextTry))
	if s.LastError != "" {
		line("Failures in a row", "%d", s.Failures)
		line("Last error", "%s", s.LastError)
	}
	if s.ReloadOwed {
		line("Reload", "programs have not been made to read the newest files: %s", cmp.Or(s.ReloadError, "it is being done"))
	}
	if s.Policy != nil {
		line("Policy", "%s", policyLine(s.Policy, now))
		if s.Policy.LastError != "" && !s.Policy.Watching {
			line("  last error", "%q", s.Policy.LastError)
		}
	}
	if s.Enforcement != nil {
		showEnforcement(line, s.Enforcement)
	}
	return t.Flush()
}

// showEnforcement tells of listeners and connections.
func showEnforcement(line func(name, format string, args ...any), e *enforcementStatus) {
	line("Connections", "%d open", e.Open)
	for _, of := range []struct {
		name string
		countsOf
	}{{"inbound", e.Inbound}, {"outbound", e.Outbound}} {
		text := fmt.Sprintf("%d ended, %d refused", of.Ended, of.Refused)
		if of.HealthChecks > 0 {
			text += fmt.Sprintf(", %d health checks", of.HealthChecks)
		}
		line("  "+of.name, "%s", text)
	}
	line("Listeners", "%d", len(e.Listeners))
	for _, l := range e.Listeners {
		text := l.Address
		if to := cmp.Or(l.App, l.To); to != "" {
			text += " to " + to
		}
		if l.Service != "" {
			text += " (" + l.Service + ")"
		}
		line("  "+l.Way, "%s", text)
	}
}

func newRenew(stdout io.Writer) *cobra.Command {
	var socket string
	cmd := &cobra.Command{Use: "renew", Short: "Have the running agent renew now", Args: noArguments, Example: "  node_agent renew && node_agent status"}
	socketFlag(cmd, &socket)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := control(cmd.Context(), socket, http.MethodPost, "/renew"); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "The agent renews now; node_agent status shows how it went.")
		return nil
	}
	return cmd
}
