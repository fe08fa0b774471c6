package policy

import "fmt"

// Mode is what the server side of a connection accepts. The zero value,
// ModeUnset, is what an object says that inherits; as an answer it accepts
// nothing.
type Mode uint8

// The modes of a server, from the weakest to the strictest.
const (
	ModeUnset  Mode = iota
	Disable         // plain text only
	Permissive      // plain text, or mutual TLS from the mesh
	Strict          // mutual TLS only
)

var modeWords = [...]string{ModeUnset: "UNSET", Disable: "DISABLE", Permissive: "PERMISSIVE", Strict: "STRICT"}

// String is the word of objects, in capitals.
func (m Mode) String() string { return word(modeWords[:], m) }

// AcceptsPlainText tells whether a server of this mode serves a client that does
// not speak TLS.
func (m Mode) AcceptsPlainText() bool { return m == Disable || m == Permissive }

// TLS is what the client side of a connection originates. The zero value,
// TLSUnset, originates nothing.
type TLS uint8

// The ways in which a client opens a connection.
const (
	TLSUnset       TLS = iota
	TLSDisable         // plain text
	TLSSimple          // TLS without a client certificate
	TLSMutual          // TLS with a client certificate of the rule's own
	TLSIstioMutual     // mutual TLS with the certificates of the mesh
)

var tlsWords = [...]string{TLSUnset: "UNSET", TLSDisable: "DISABLE", TLSSimple: "SIMPLE", TLSMutual: "MUTUAL", TLSIstioMutual: "ISTIO_MUTUAL"}

// String is the word of objects, in capitals.
func (t TLS) String() string { return word(tlsWords[:], t) }

// AuthPolicy is the word of mesh config and of annotations in the legacy
// generation. The zero value is an absent or unusable one, which inherits.
type AuthPolicy uint8

// The words of the legacy generation.
const (
	AuthUnset AuthPolicy = iota
	AuthNone
	AuthMutualTLS
)

var authWords = [...]string{AuthUnset: "", AuthNone: "NONE", AuthMutualTLS: "MUTUAL_TLS"}

// String is the word of mesh config; empty for AuthUnset.
func (a AuthPolicy) String() string { return word(authWords[:], a) }

// Verdict tells whether client and server can talk. The zero value is Conflict.
type Verdict uint8

// The verdicts.
const (
	Conflict Verdict = iota
	OK
)

// String is OK or CONFLICT.
func (v Verdict) String() string { return word([]string{"CONFLICT", "OK"}, v) }

// Symptom is how a conflict shows to the person at the client; empty when there
// is none to be seen.
type Symptom string

// The symptoms.
const (
	CurlExit56      Symptom = "curl_exit_56"               // reset by a server that wants TLS
	CurlExit35      Symptom = "curl_exit_35"               // a TLS handshake with the wrong party fails
	HTTP503         Symptom = "http_503"                   // the client's own sidecar answers
	ConnectionReset Symptom = "connection_reset"           // a raw TCP port has no status to report
	TLSPassthrough  Symptom = "tls_passthrough_to_app"     // the application gets TLS that it may not speak
	DependsOnServer Symptom = "depends_on_external_server" // the server is outside of what can be known
	UnknownServer   Symptom = "unknown_server"             // nobody declares the host, or the endpoint
)

// Generation is which rules hold. The zero value is Auto.
type Generation uint8

// The generations. Each stands for one release, see Generation.Release.
const (
	Auto     Generation = iota // by what exists
	Legacy                     // annotations of Services, authPolicy and mtlsExcludedServices
	V1Alpha1                   // MeshPolicy, Policy, DestinationRule
	V1                         // PeerAuthentication, DestinationRule, automatic mTLS
)

var generationWords = [...]string{Auto: "auto", Legacy: "legacy", V1Alpha1: "v1alpha1", V1: "v1"}

// String is what ParseGeneration reads.
func (g Generation) String() string { return word(generationWords[:], g) }

// Release is the Istio release whose behaviour the generation stands for; empty
// for Auto.
func (g Generation) Release() string { return word([]string{"", "0.5", "1.4", "1.31"}, g) }

// ParseGeneration reads auto, legacy, v1alpha1 or v1.
func ParseGeneration(text string) (Generation, error) {
	for g, w := range generationWords {
		if w == text {
			return Generation(g), nil
		}
	}
	return Auto, fmt.Errorf("generation %q is none of auto, legacy, v1alpha1, v1", text)
}

// word is the table's entry, or the number of a value that has none.
func word[T ~uint8](words []string, v T) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

// parseWord finds a word of an object; absent says which of the table's entries
// nobody may write.
func parseWord[T ~uint8](words []string, text string, least T) (T, bool) {
	for i := int(least); i < len(words); i++ {
		if words[i] == text {
			return T(i), true
		}
	}
	return 0, false
}

func (m *Mode) parse(text string) (ok bool) {
	*m, ok = parseWord(modeWords[:], text, ModeUnset)
	return ok
}
func (*Mode) words() []string { return modeWords[:] }

func (t *TLS) parse(text string) (ok bool) {
	*t, ok = parseWord(tlsWords[:], text, TLSDisable)
	return ok
}
func (*TLS) words() []string { return tlsWords[TLSDisable:] }

func (a *AuthPolicy) parse(text string) (ok bool) {
	*a, ok = parseWord(authWords[:], text, AuthNone)
	return ok
}
func (*AuthPolicy) words() []string { return authWords[AuthNone:] }

func (g *Generation) parse(text string) (ok bool) {
	*g, ok = parseWord(generationWords[:], text, Auto)
	return ok
}
func (*Generation) words() []string { return generationWords[:] }
