// Package inspect says what certificates are, and everything that is wrong
// with them: as SPIFFE certificates, as certificates at all, and as a chain to
// given roots.
//
// It is pure: certificates, roots and the time go in, a report comes out. It
// refuses to do I/O, to read a clock, and to keep a private key's content: of a
// key it reports the type and whose it is.
package inspect

import "time"

// Role is what a certificate is for.
type Role string

// The roles.
const (
	Workload Role = "workload" // it stands for a workload, and signs nothing
	Issuer   Role = "issuer"   // it signs others, and another signed it
	Root     Role = "root"     // it is trusted by itself
)

// Report is what was found. It is the stable form for programs.
type Report struct {
	// Source is the file or Secret that was inspected.
	Source       string        `json:"source"`
	Certificates []Certificate `json:"certificates"`
	// Key is absent where there was no private key.
	Key *Key `json:"key,omitempty"`
	// Verification is absent where it is a root that was inspected.
	Verification *Verification `json:"verification,omitempty"`
	// Right is true when there are no problems.
	Right    bool      `json:"right"`
	Problems []Finding `json:"problems"`
	// Remarks are worth knowing and do no harm.
	Remarks []Finding `json:"remarks"`
}

// Certificate is one certificate in words.
type Certificate struct {
	// Number counts from 1; findings refer to it.
	Number int `json:"number"`
	// From is the file or the key of a Secret that held it.
	From             string    `json:"from"`
	Role             Role      `json:"role"`
	SPIFFEID         string    `json:"spiffeID,omitempty"`
	URIs             []string  `json:"uris,omitempty"`
	DNSNames         []string  `json:"dnsNames,omitempty"`
	IPAddresses      []string  `json:"ipAddresses,omitempty"`
	EmailAddresses   []string  `json:"emailAddresses,omitempty"`
	Subject          string    `json:"subject"`
	Issuer           string    `json:"issuer"`
	Serial           string    `json:"serial"`
	KeyType          string    `json:"keyType"`
	Signature        string    `json:"signature"`
	NotBefore        time.Time `json:"notBefore"`
	NotAfter         time.Time `json:"notAfter"`
	CA               bool      `json:"ca"`
	MaxPathLength    *int      `json:"maxPathLength,omitempty"`
	KeyUsages        []string  `json:"keyUsages,omitempty"`
	ExtKeyUsages     []string  `json:"extKeyUsages,omitempty"`
	KeyUsageCritical bool      `json:"keyUsageCritical"`
	SubjectKeyID     string    `json:"subjectKeyID,omitempty"`
	AuthorityKeyID   string    `json:"authorityKeyID,omitempty"`
	SHA256           string    `json:"sha256"`
	PublicKeySHA256  string    `json:"publicKeySHA256"`
}

// Key is a private key, without its content.
type Key struct {
	From    string `json:"from"`
	KeyType string `json:"keyType"`
	// Matches tells whether it is the first certificate's.
	Matches bool `json:"matches"`
}

// Verification is what became of verifying the chain.
type Verification struct {
	// Verified is true when there is a path to one of the roots.
	Verified bool `json:"verified"`
	// Roots says where the roots came from; empty when there were none.
	Roots string `json:"roots,omitempty"`
	// End is when the path ends: with the first of its certificates to expire.
	End time.Time `json:"end,omitzero"`
}

// Finding is a problem or a remark.
type Finding struct {
	// Code is the same for every finding of a kind, for programs.
	Code string `json:"code"`
	// Certificate is the Number of the certificate at fault, 0 when none is by
	// itself.
	Certificate int    `json:"certificate,omitempty"`
	Message     string `json:"message"`
}
