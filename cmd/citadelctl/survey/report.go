// Package survey judges workload Secrets for a person who wants to know how
// they are.
//
// The judgement is secretcontroller.Judge's, the same by which citadel replaces
// Secrets, so that the two cannot disagree. What this package adds is what
// Judge must be told in a cluster seen from outside: the roots, the trust
// domain, the living service accounts. It is pure: it refuses to do I/O and to
// read a clock.
package survey

import "time"

// Report is what was found. It is the stable form for programs.
type Report struct {
	Items   []Item  `json:"items"`
	Summary Summary `json:"summary"`
}

// Summary counts all Secrets that were judged.
type Summary struct {
	Right int `json:"right"`
	Wrong int `json:"wrong"`
}

// Item is one Secret.
type Item struct {
	Namespace      string `json:"namespace"`
	Name           string `json:"name"`
	ServiceAccount string `json:"serviceAccount,omitempty"`
	// Certificate is absent where none could be read.
	Certificate *Certificate `json:"certificate,omitempty"`
	// TrustDomain and Roots are what it was judged by.
	TrustDomain string `json:"trustDomain,omitempty"`
	Roots       string `json:"roots"`
	// ExpiresAt is the end of the certificate or of the first of its issuers to
	// end.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// NextRotation is when citadel replaces it. Absent where citadel does so as
	// soon as it can, or never will.
	NextRotation time.Time `json:"nextRotation,omitzero"`
	Right        bool      `json:"right"`
	Problems     []Problem `json:"problems"`
	Remarks      []string  `json:"remarks,omitempty"`
}

// Certificate is what the first certificate of a Secret says of itself.
type Certificate struct {
	SPIFFEID  string    `json:"spiffeID,omitempty"`
	DNSNames  []string  `json:"dnsNames"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// Problem is something wrong with a Secret.
type Problem struct {
	// Reason is one of secretcontroller's, or of this package's.
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons beside secretcontroller's.
const (
	// Orphan says that the service account does not exist.
	Orphan = "service account"
	// Misnamed says that no workload looks for a Secret of this name.
	Misnamed = "name"
)

// Only returns the report with only the Secrets that are wrong. The summary
// still counts all.
func (r Report) Only() Report {
	wrong := Report{Items: []Item{}, Summary: r.Summary}
	for _, item := range r.Items {
		if !item.Right {
			wrong.Items = append(wrong.Items, item)
		}
	}
	return wrong
}
