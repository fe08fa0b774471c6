package mesh

import "citadel/ca/policy"

// Cell is what holds for one client and one server. Cells compare with ==.
type Cell struct {
	Verdict  string `json:"verdict"`
	Server   string `json:"server"`
	Client   string `json:"client"`
	ServerBy string `json:"serverBy"`
	ClientBy string `json:"clientBy"`
	Symptom  string `json:"symptom,omitempty"`
}

func newCell(d policy.Decision) Cell {
	return Cell{d.Verdict.String(), d.Server.String(), d.Client.String(), d.ServerBy.String(), d.ClientBy.String(), string(d.Symptom)}
}
