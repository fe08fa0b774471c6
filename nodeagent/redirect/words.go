package redirect

import (
	"fmt"
	"io"
	"strings"
)

// Describe writes settings in sentences. user names the user of an id, or
// returns "".
func (s Settings) Describe(w io.Writer, user func(id uint32) string) {
	if s.OutboundPort == 0 {
		fmt.Fprintln(w, "Outbound: nothing is captured.")
	} else {
		fmt.Fprintf(w, "Outbound: TCP connections that programs of this host open, to %s, go to the agent's port %d.\n", networks(s.IncludeCIDRs), s.OutboundPort)
		fmt.Fprintln(w, "  but not what this host says to itself")
		except(w, "of users", named(s.ExcludeUIDs, user))
		except(w, "of groups", words(s.ExcludeGIDs))
		except(w, "to addresses", words(s.ExcludeCIDRs))
		except(w, "to ports", words(s.ExcludeOutboundPorts))
	}
	if s.InboundPort == 0 || len(s.InboundPorts) == 0 {
		fmt.Fprintln(w, "Inbound: nothing is captured.")
	} else {
		fmt.Fprintf(w, "Inbound: TCP connections that come to %s of this host from outside go to the agent's port %d.\n", ports(s.InboundPorts), s.InboundPort)
		fmt.Fprintf(w, "  but not to the agent's own ports %s\n", strings.Join(words(s.own()), ", "))
		except(w, "to ports", words(s.ExcludeInboundPorts))
	}
}

func except(w io.Writer, what string, list []string) {
	if len(list) > 0 {
		fmt.Fprintf(w, "  but not %s %s\n", what, strings.Join(list, ", "))
	}
}

func words[T any](list []T) (all []string) {
	for _, one := range list {
		all = append(all, fmt.Sprint(one))
	}
	return all
}

func named(ids []uint32, user func(uint32) string) (all []string) {
	for _, id := range ids {
		word := fmt.Sprint(id)
		if name := user(id); name != "" {
			word += " (" + name + ")"
		}
		all = append(all, word)
	}
	return all
}

func networks[T fmt.Stringer](list []T) string {
	if text := strings.Join(words(list), ", "); text != strings.Join(words(everywhere), ", ") {
		return text
	}
	return "any address"
}

func ports(list []Ports) string {
	if len(list) == 1 && list[0] == everyPort[0] {
		return "any port"
	}
	return "ports " + strings.Join(words(list), ", ")
}
