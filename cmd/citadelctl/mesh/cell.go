package mesh

import (
	"fmt"
	"strings"

	"citadel/ca/policy"
)

// Cell is what holds for one client and one server. Cells compare with ==.
type Cell struct {
	Verdict  string `json:"verdict"`
	Server   string `json:"server"`
	Client   string `json:"client"`
	ServerBy string `json:"serverBy"`
	ClientBy string `json:"clientBy"`
	Symptom  string `json:"symptom,omitempty"`
	// Failing of Endpoints fail, where that is some of them and not all; else both
	// are 0, and the verdict holds for each.
	Failing   int `json:"failing,omitempty"`
	Endpoints int `json:"endpoints,omitempty"`
}

func newCell(d policy.Decision) Cell {
	r := reasonOf(&d)
	return r.cell()
}

// Look is the one word that is shown of a Cell.
type Look int

// The looks, the best first.
const (
	Encrypted Look = iota // it works, by mutual TLS
	Plain                 // it works, in plain text
	Some                  // it works, but not at all endpoints
	Depends               // only a server outside of the mesh knows
	Conflict
	looks
)

// String is the word.
func (l Look) String() string {
	return [...]string{"mTLS", "plain", "partly", "depends", "CONFLICT"}[l]
}

// Look is how a Cell is shown.
func (c *Cell) Look() Look {
	switch {
	case c.Verdict == policy.OK.String() && c.Failing > 0:
		return Some
	case c.Verdict == policy.OK.String() && c.Client == policy.TLSIstioMutual.String():
		return Encrypted
	case c.Verdict == policy.OK.String():
		return Plain
	case c.Symptom == string(policy.DependsOnServer):
		return Depends
	}
	return Conflict
}

// Reason is a Cell in a line.
func (c *Cell) Reason() string {
	text := fmt.Sprintf("%s: server %s by %s, client %s by %s", c.Verdict, c.Server, c.ServerBy, c.Client, c.ClientBy)
	if shows := Shows(policy.Symptom(c.Symptom)); shows != "" {
		text += ": " + shows
	}
	if c.Failing > 0 {
		text += fmt.Sprintf("; fails at %d of %d endpoints", c.Failing, c.Endpoints)
	}
	return text
}

// ShortHost is a host without the domain that all Services have.
func ShortHost(host string) string { return strings.TrimSuffix(host, ".svc."+policy.ClusterDomain) }

// more says how many others there are.
func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" +%d", n)
}
