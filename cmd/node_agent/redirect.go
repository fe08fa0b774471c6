package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/cmd/internal/daemon"
	"citadel/nodeagent/redirect"
)

// Whose connections are not captured unless somebody says otherwise: the unit's
// user, and where there is none, as in a pod, the uid that sidecars have.
const (
	unitUser   = "istio-agent"
	sidecarUID = "1337"
)

func newRedirect(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{Use: "redirect", Short: "Capture the connections of this host, or stop it",
		Long: "redirect has the kernel hand TCP connections to the agent, by nftables, in this network namespace. It needs\n" +
			"the capability CAP_NET_ADMIN: root has it, a unit gives it by AmbientCapabilities=, a pod by capabilities: {add: [NET_ADMIN]}.",
		Example: `  node_agent redirect install --inbound-ports 8000,9000-9010
  node_agent redirect show
  node_agent redirect remove`,
		RunE: func(cmd *cobra.Command, rest []string) error {
			if err := noArguments(cmd, rest); err != nil {
				return err
			}
			return daemon.UsageError{Err: errors.New("redirect: say install, remove or show")}
		}}
	cmd.AddCommand(newRedirectInstall(stdout, stderr), newRedirectRemove(stdout), newRedirectShow(stdout))
	return cmd
}

func newRedirectInstall(stdout, stderr io.Writer) *cobra.Command {
	flags := daemon.NewFlags("NODE_AGENT_REDIRECT_")
	o := newRedirectOptions(flags)
	cmd := &cobra.Command{Use: "install", Short: "Capture connections, in place of what was captured before", Args: cobra.ArbitraryArgs,
		Long: "install puts rules into table citadel of nftables, in place of those that are there, all at once. Each flag can\n" +
			"also be set by the environment: NODE_AGENT_REDIRECT_ and its name in capitals, with _ for -. Connections that\n" +
			"are open already stay as they are. Without --inbound-ports nothing that comes to this host is captured.",
		Example: `  node_agent redirect install --inbound-ports 8000
  node_agent redirect install --inbound-ports '*' --exclude-inbound-ports 22 --exclude-cidrs 169.254.0.0/16`}
	cmd.RunE = func(cmd *cobra.Command, rest []string) error {
		if err := noArguments(cmd, rest); err != nil {
			flags.Report(err)
		}
		flags.ReadEnvironment(cmd.Flags())
		s, err := o.settings()
		if err != nil {
			return daemon.UsageError{Err: err}
		}
		for _, text := range flags.Warnings() {
			fmt.Fprintln(stderr, "warning:", text)
		}
		if _, err := redirect.Install(cmd.Context(), s); err != nil {
			return err
		}
		s.Describe(stdout, userName)
		return nil
	}
	flags.AddTo(cmd.Flags())
	return cmd
}

func newRedirectRemove(stdout io.Writer) *cobra.Command {
	return &cobra.Command{Use: "remove", Short: "Capture nothing any more", Args: noArguments, Example: "  node_agent redirect remove",
		Long: "remove takes table citadel out of nftables; that there is none is no error. Connections that are captured end.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := redirect.Remove(cmd.Context())
			if err == nil && found {
				fmt.Fprintln(stdout, "Nothing is captured any more.")
			} else if err == nil {
				fmt.Fprintln(stdout, "Nothing was captured.")
			}
			return err
		}}
}

func newRedirectShow(stdout io.Writer) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "show", Short: "Show what is captured, and whether somebody changed the rules", Args: noArguments,
		Long: "show exits with 1 when nothing is installed, or the rules are not those that install made.",
		Example: `  node_agent redirect show
  node_agent redirect show -o json`}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if output != "text" && output != "json" {
			return daemon.UsageError{Err: fmt.Errorf("--output: %q: use text or json", output)}
		}
		return showRedirect(cmd.Context(), stdout, output == "json")
	}
	return cmd
}

func showRedirect(ctx context.Context, stdout io.Writer, asJSON bool) error {
	found, err := redirect.Read(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		if err := json.NewEncoder(stdout).Encode(shownOf(found)); err != nil {
			return err
		}
	}
	if found == nil {
		return errors.New("nothing is installed: node_agent redirect install")
	}
	if !asJSON {
		fmt.Fprintf(stdout, "Table:    %s citadel of nftables\n", found.Family)
		found.Settings.Describe(stdout, userName)
		for _, chain := range found.Lacks {
			fmt.Fprintf(stdout, "Without:  chain %s, which this kernel does not take, or somebody took away: a port whose connection was reset is refused for as long as the kernel remembers that\n", chain)
		}
		for _, text := range found.Drift {
			fmt.Fprintln(stdout, "Changed:  "+text)
		}
	}
	if len(found.Drift) > 0 {
		return errors.New("the rules are not as they were installed: node_agent redirect install mends it")
	}
	return nil
}

// shown is the JSON of redirect show.
type shown struct {
	Installed            bool     `json:"installed"`
	Family               string   `json:"family,omitempty"`
	OutboundPort         uint16   `json:"outboundPort"`
	IncludeCIDRs         []string `json:"includeCIDRs"`
	ExcludeCIDRs         []string `json:"excludeCIDRs"`
	ExcludeOutboundPorts []string `json:"excludeOutboundPorts"`
	ExcludeUIDs          []uint32 `json:"excludeUIDs"`
	ExcludeGIDs          []uint32 `json:"excludeGIDs"`
	InboundPort          uint16   `json:"inboundPort"`
	InboundPorts         []string `json:"inboundPorts"`
	ExcludeInboundPorts  []string `json:"excludeInboundPorts"`
	MonitoringPort       uint16   `json:"monitoringPort"`
	Drift                []string `json:"drift"`
	Lacks                []string `json:"lacks"`
}

func shownOf(found *redirect.Installed) shown {
	if found == nil {
		found = &redirect.Installed{}
		return shown{}.filled(found.Settings)
	}
	return shown{Installed: true, Family: found.Family.String(), Drift: found.Drift, Lacks: found.Lacks}.filled(found.Settings)
}

// filled has settings in it, and empty lists in place of none.
func (v shown) filled(s redirect.Settings) shown {
	v.OutboundPort, v.InboundPort, v.MonitoringPort = s.OutboundPort, s.InboundPort, s.MonitoringPort
	v.IncludeCIDRs, v.ExcludeCIDRs = texts(s.IncludeCIDRs), texts(s.ExcludeCIDRs)
	v.ExcludeOutboundPorts, v.InboundPorts, v.ExcludeInboundPorts = texts(s.ExcludeOutboundPorts), texts(s.InboundPorts), texts(s.ExcludeInboundPorts)
	v.ExcludeUIDs, v.ExcludeGIDs, v.Drift = append([]uint32{}, s.ExcludeUIDs...), append([]uint32{}, s.ExcludeGIDs...), append([]string{}, v.Drift...)
	v.Lacks = append([]string{}, v.Lacks...)
	return v
}

func texts[T fmt.Stringer](list []T) []string {
	all := []string{}
	for _, one := range list {
		all = append(all, one.String())
	}
	return all
}

func userName(id uint32) string {
	if found, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return found.Username
	}
	return ""
}

// redirectOptions are the flags of redirect install as they are given.
type redirectOptions struct {
	flags                         *daemon.Flags
	outbound, inbound, monitoring uint16
	includeCIDRs, excludeCIDRs    string
	uids, gids                    string
	excludeOutbound               string
	inboundPorts, excludeInbound  string
}

func newRedirectOptions(flags *daemon.Flags) *redirectOptions {
	o := &redirectOptions{flags: flags}
	o.outboundFlags(flags.Section("Outbound"))
	o.inboundFlags(flags.Section("Inbound"))
	return o
}

func (o *redirectOptions) outboundFlags(f *pflag.FlagSet) {
	f.Uint16Var(&o.outbound, "outbound-port", redirect.DefaultOutboundPort, "`port` of the agent that takes what programs of this host open; 0: nothing")
	f.StringVar(&o.uids, "exclude-uids", "", "`users`, by name or id, whose connections are not captured; empty: "+unitUser+", or "+sidecarUID+" where there is no such user")
	f.StringVar(&o.gids, "exclude-gids", "", "`groups`, by name or id, likewise, beside them")
	f.StringVar(&o.includeCIDRs, "include-cidrs", "*", "`networks` to which connections are captured, as 10.0.0.0/8,2001:db8::/32, or * for all")
	f.StringVar(&o.excludeCIDRs, "exclude-cidrs", "", "`networks` of these to which they are not")
	f.StringVar(&o.excludeOutbound, "exclude-outbound-ports", "", "`ports` to which they are not, as 53,9000-9010")
}

func (o *redirectOptions) inboundFlags(f *pflag.FlagSet) {
	f.Uint16Var(&o.inbound, "inbound-port", redirect.DefaultInboundPort, "`port` of the agent that takes what comes to this host from outside; 0: nothing")
	f.StringVar(&o.inboundPorts, "inbound-ports", "", "`ports` of this host whose connections are captured, as 8000,9000-9010, or * for all; empty: none")
	f.StringVar(&o.excludeInbound, "exclude-inbound-ports", "", "`ports` of these whose are not")
	f.Uint16Var(&o.monitoring, "monitoring-port", redirect.DefaultMonitoringPort, "`port` of the agent's own metrics, never captured; 0: it has none")
}

// settings are the flags, checked; the error has all that is wrong.
func (o *redirectOptions) settings() (redirect.Settings, error) {
	s := redirect.Settings{OutboundPort: o.outbound, InboundPort: o.inbound, MonitoringPort: o.monitoring}
	s.IncludeCIDRs = parsed(o, "include-cidrs", o.includeCIDRs, redirect.ParseCIDRs)
	s.ExcludeCIDRs = parsed(o, "exclude-cidrs", o.excludeCIDRs, redirect.ParseCIDRs)
	s.ExcludeOutboundPorts = parsed(o, "exclude-outbound-ports", o.excludeOutbound, redirect.ParsePorts)
	s.InboundPorts = parsed(o, "inbound-ports", o.inboundPorts, redirect.ParsePorts)
	s.ExcludeInboundPorts = parsed(o, "exclude-inbound-ports", o.excludeInbound, redirect.ParsePorts)
	s.ExcludeGIDs = parsed(o, "exclude-gids", o.gids, func(text string) ([]uint32, error) { return redirect.ParseIDs(text, groupID) })
	s.ExcludeUIDs = parsed(o, "exclude-uids", o.users(), func(text string) ([]uint32, error) { return redirect.ParseIDs(text, userID) })
	if problems := o.flags.Problems(); len(problems) > 0 {
		return s, errors.Join(problems...)
	}
	return s, errors.Join(s.Check()...)
}

// users are those of --exclude-uids, or who the agent most likely is.
func (o *redirectOptions) users() string {
	if o.uids != "" {
		return o.uids
	}
	if _, err := user.Lookup(unitUser); err == nil {
		return unitUser
	}
	return sidecarUID
}

func parsed[T any](o *redirectOptions, flag, text string, parse func(string) ([]T, error)) []T {
	all, err := parse(text)
	if err != nil {
		o.flags.Problem(flag, "%v", err)
	}
	return all
}

func userID(name string) (string, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return found.Uid, nil
}

func groupID(name string) (string, error) {
	found, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return found.Gid, nil
}
