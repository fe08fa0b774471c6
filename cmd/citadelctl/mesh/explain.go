package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"citadel/ca/policy"
)

// Question is what a person asks about one connection.
type Question struct {
	Client   ClientName
	Server   ServerName
	Subset   string // empty unless a route has chosen one
	Endpoint string // empty unless one Pod is meant
	Sidecar  *bool  // what the client has; nil: what its workloads have
}

// Answer is a Decision in the words of people and programs.
type Answer struct {
	Generation string `json:"generation"`
	// Release is the one whose behaviour the generation stands for.
	Release string `json:"release"`
	// Picked says why the generation holds, when nobody has said which.
	Picked   string `json:"picked,omitempty"`
	Client   Whom   `json:"client"`
	Server   Where  `json:"server"`
	Verdict  string `json:"verdict"`
	Sentence string `json:"sentence"`
	// Symptom is a word for programs, Shows the same for people.
	Symptom    string    `json:"symptom,omitempty"`
	Shows      string    `json:"shows,omitempty"`
	ServerSide Side      `json:"serverSide"`
	ClientSide Side      `json:"clientSide"`
	Warnings   []Warning `json:"warnings,omitempty"`
	// Identities are those of which the server must prove one; SNI and ALPN what the
	// client asks for.
	Identities []string  `json:"identities,omitempty"`
	SNI        string    `json:"sni,omitempty"`
	ALPN       []string  `json:"alpn,omitempty"`
	Failing    []Failing `json:"failing,omitempty"`
	Notes      []string  `json:"notes,omitempty"`
	Fix        *Fix      `json:"fix,omitempty"`
}

// Whom is the client of an Answer.
type Whom struct {
	Name           string   `json:"name"`
	Namespace      string   `json:"namespace"`
	ServiceAccount string   `json:"serviceAccount,omitempty"`
	Sidecar        bool     `json:"sidecar"`
	Workloads      []string `json:"workloads,omitempty"`
}

// Where is the server of an Answer.
type Where struct {
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Subset   string `json:"subset,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Object declares the host.
	Object string `json:"object,omitempty"`
}

// Side is one side of an Answer.
type Side struct {
	Says     string     `json:"says"`
	By       string     `json:"by"`
	Why      string     `json:"why"`
	Shadowed []Shadowed `json:"shadowed,omitempty"`
}

// Shadowed is an object that speaks about the connection and did not decide.
type Shadowed struct {
	Object string `json:"object"`
	Says   string `json:"says,omitempty"`
	Why    string `json:"why"`
}

// Warning is something that people should know.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Failing is an endpoint that the client cannot talk to.
type Failing struct {
	Endpoint string `json:"endpoint"`
	Server   string `json:"server"`
	ServerBy string `json:"serverBy"`
	Client   string `json:"client"`
}

// Explain answers a question. When policy tells the workloads of the client
// apart, the worst answer counts. Errors of names that nobody has are ErrUnknown.
// now is when a fix would be applied.
func (w *World) Explain(now time.Time, q Question) (Answer, error) {
	found, err := w.Clients(q.Client)
	if err != nil && q.Sidecar == nil {
		return Answer{}, fmt.Errorf("%w: or say whether it has a sidecar", err)
	}
	if q.Sidecar != nil {
		found = found.with(q.Client.Namespace, *q.Sidecar)
	}
	server, err := w.Server(q.Server, q.Client.Namespace)
	if err != nil {
		return Answer{}, err
	}
	server.Subset, server.Endpoint = q.Subset, q.Endpoint
	if q.Subset != "" && !w.defines(server.Host, q.Subset) {
		return Answer{}, fmt.Errorf("subset %s of server %s %w: no DestinationRule for it defines that, and a route to it would be answered with 503", q.Subset, server.Host, ErrUnknown)
	}
	d, others := w.worst(found.Kinds, server)
	if q.Endpoint != "" && len(d.Endpoints()) == 0 {
		return Answer{}, fmt.Errorf("endpoint %s %w: %s has none of that name", q.Endpoint, ErrUnknown, server.Host)
	}
	a := newAnswer(d)
	a.Client.Name, a.Client.Workloads = q.Client.String(), found.Workloads
	if a.Notes = nil; others > 0 {
		a.Notes = append(a.Notes, fmt.Sprintf("policy tells the workloads of %s apart: %d of their kinds get a better answer", q.Client, others))
	}
	a.Sentence = sentence(a.Client.Name, d)
	if len(a.Failing) > 0 && d.Verdict == policy.OK {
		_, all := d.Reach()
		a.Sentence = fmt.Sprintf("but for %d of %d endpoints, which %s cannot call: %s", len(a.Failing), all, a.Client.Name, a.Sentence)
	}
	if a.Fix = w.Fix(now, d); a.Fix == nil && !a.Works() {
		a.Notes = append(a.Notes, whyNoFix(d))
	}
	if w.Object(policy.Ref{Kind: policy.KindMeshConfig}) == nil {
		a.Notes = append(a.Notes, "no mesh config (ConfigMap istio) was seen: the answer is by its defaults")
	}
	return a, nil
}

// defines tells whether any rule for a host has a subset.
func (w *World) defines(host, subset string) bool {
	for _, o := range w.objects {
		r, is := o.(*policy.DestinationRule)
		if !is || !slices.ContainsFunc(r.Spec.Subsets, func(s policy.Subset) bool { return s.Name == subset }) {
			continue
		}
		if policy.MatchHost(r.FullHost(), host) {
			return true
		}
	}
	return false
}

// Works tells whether the client can talk to the server, at each endpoint.
func (a *Answer) Works() bool { return a.Verdict == policy.OK.String() && len(a.Failing) == 0 }

// with is what was found, or anybody, with or without a sidecar.
func (f Found) with(namespace string, sidecar bool) Found {
	if len(f.Kinds) == 0 {
		f.Kinds = []policy.Client{{Namespace: namespace}}
	}
	f.Kinds = slices.Clone(f.Kinds)
	for i := range f.Kinds {
		f.Kinds[i].Sidecar = sidecar
	}
	return f
}

// worst is the worst decision for some clients, and for how many others it is a
// better one.
func (w *World) worst(clients []policy.Client, server policy.Server) (worst policy.Decision, better int) {
	for i, c := range clients {
		d := w.Resolve(policy.Query{Client: c, Server: server})
		switch order := compareDecisions(d, worst); {
		case i == 0:
			worst = d
		case order < 0:
			worst, better = d, i
		case order > 0:
			better++
		}
	}
	return worst, better
}

// compareDecisions puts conflicts first, then what fails at the most endpoints,
// then what is not encrypted.
func compareDecisions(a, b policy.Decision) int {
	failing := func(d policy.Decision) int { n, _ := d.Reach(); return n }
	return cmp.Or(cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(failing(b), failing(a)), cmp.Compare(a.Client, b.Client))
}

func newAnswer(d policy.Decision) Answer {
	e, q := d.Explain(), d.Query()
	ref, _ := d.Declares()
	a := Answer{Generation: e.Generation.String(), Release: e.Generation.Release(), Picked: e.Picked,
		Client:  Whom{Namespace: q.Client.Namespace, ServiceAccount: q.Client.ServiceAccount, Sidecar: q.Client.Sidecar},
		Server:  Where{q.Server.Host, q.Server.Port, q.Server.Subset, q.Server.Endpoint, ref.String()},
		Verdict: e.Verdict.String(), Symptom: string(e.Symptom), Shows: Shows(e.Symptom),
		ServerSide: newSide(e.Server, d.ServerBy), ClientSide: newSide(e.Client, d.ClientBy),
		Identities: e.Identities, SNI: e.SNI, ALPN: e.ALPN}
	for _, warning := range e.Warnings {
		a.Warnings = append(a.Warnings, Warning(warning))
	}
	for _, f := range e.Failing {
		a.Failing = append(a.Failing, Failing{f.Endpoint, f.Server.String(), f.ServerBy, f.Client.String()})
	}
	return a
}

func newSide(s policy.Side, by policy.Origin) Side {
	side := Side{Says: s.Says, By: s.By, Why: Why(by)}
	for _, one := range s.Shadowed {
		side.Shadowed = append(side.Shadowed, Shadowed(one))
	}
	return side
}

// sentence is the verdict for people.
func sentence(client string, d policy.Decision) string {
	server := fmt.Sprintf("%s:%d", d.Query().Server.Host, d.Query().Server.Port)
	sends, takes := Sends(d.Client), Takes(d.Server)
	switch {
	case d.Symptom == policy.UnknownServer:
		return fmt.Sprintf("%s cannot call %s: nobody declares it, and nothing is let through.", client, server)
	case d.Verdict == policy.OK && d.Client == policy.TLSIstioMutual:
		return fmt.Sprintf("%s can call %s, by mutual TLS: the client %s, and the server %s.", client, server, sends, takes)
	case d.Verdict == policy.OK:
		return fmt.Sprintf("%s can call %s, in plain text: the client %s, and the server %s.", client, server, sends, takes)
	case d.Symptom == policy.DependsOnServer:
		return fmt.Sprintf("%s may or may not call %s: the client %s, and the server is outside of the mesh.", client, server, sends)
	}
	return fmt.Sprintf("%s cannot call %s: the client %s, and the server %s.", client, server, sends, takes)
}

// whyNoFix says why nothing is proposed.
func whyNoFix(d policy.Decision) string {
	switch d.Symptom {
	case policy.UnknownServer:
		return "no policy mends this: declare the server by a Service or ServiceEntry"
	case policy.DependsOnServer:
		return "whether this works is known to the server alone: no change of policy is proposed"
	}
	return "no single change of policy was found that mends this"
}

// Sends is what a client does, for people.
func Sends(t policy.TLS) string {
	switch t {
	case policy.TLSDisable:
		return "sends plain text"
	case policy.TLSSimple:
		return "opens TLS without a client certificate"
	case policy.TLSMutual:
		return "opens TLS with a certificate of its rule's own"
	case policy.TLSIstioMutual:
		return "opens mutual TLS"
	}
	return "sends nothing"
}

// Takes is what a server does, for people.
func Takes(m policy.Mode) string {
	switch m {
	case policy.Disable:
		return "takes plain text only"
	case policy.Permissive:
		return "takes plain text and mutual TLS"
	case policy.Strict:
		return "takes mutual TLS only"
	}
	return "takes nothing"
}

// Shows is how a symptom looks to the person at the client; empty for none.
func Shows(s policy.Symptom) string {
	return map[policy.Symptom]string{
		policy.CurlExit56:      "the connection is reset: curl exits with 56 and has no status",
		policy.CurlExit35:      "the TLS handshake fails: curl exits with 35",
		policy.HTTP503:         "the client's own sidecar answers with 503",
		policy.ConnectionReset: "the connection is reset",
		policy.TLSPassthrough:  "the application gets TLS, and answers with 400 or a reset unless it speaks that",
		policy.DependsOnServer: "depends on the server, which is outside of the mesh",
		policy.UnknownServer:   "nothing is let through to a server that nobody declares",
	}[s]
}

// Why is what decided, for people.
func Why(by policy.Origin) string {
	switch by.Reason {
	case policy.ByObject:
		return strings.Replace(by.String(), "#", ", at ", 1) + " says so"
	case policy.ByDefault:
		return "nothing says anything, and this is the default"
	case policy.NoSidecar:
		return "it has no sidecar"
	case policy.External:
		return "the server is outside of the mesh"
	case policy.Headless:
		return "TCP ports of headless Services are not encrypted"
	case policy.AutoMTLS:
		return "the client goes by the server (automatic mTLS)"
	case policy.ByAuthPolicy:
		return "authPolicy of the mesh config says so"
	case policy.ExcludedByMesh:
		return "mtlsExcludedServices of the mesh config lists the server"
	}
	return "nobody declares the server"
}
