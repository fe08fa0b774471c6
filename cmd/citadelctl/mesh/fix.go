package mesh

import (
	"fmt"
	"strings"
	"time"

	"citadel/ca/policy"
)

// Fix is a change of policy that mends a conflict, or what fails at single
// endpoints. It was tried: with it the verdict is OK, and endpoints at which it
// fails are within Breaks if it did not fail there before.
type Fix struct {
	Text    string   `json:"text"`
	Changes []Change `json:"changes"`
	// Weakens says that the server takes plain text from then on, or that a client
	// no longer encrypts.
	Weakens bool `json:"weakens,omitempty"`
	// Breaks names pairs that can talk now, and could not with the fix. There are
	// some only where no better fix was found.
	Breaks []string `json:"breaks,omitempty"`
	// Also names other servers that take, or get from this client, something else
	// than before: the first few.
	Also []string `json:"also,omitempty"`

	failing int // endpoints of the server, still
}

// candidate is a fix that may or may not do.
type candidate struct {
	text    string
	weakens bool
	edits   []edit
	narrow  bool // it concerns servers of one namespace alone
}

// deepest is how many candidates are tried on top of each other.
const deepest = 2

// Fix finds a change that mends a conflict, nil when there is none or nothing to
// mend. It goes for those that keep connections encrypted, then for those that
// break nobody else. now is when it would be applied.
func (w *World) Fix(now time.Time, d policy.Decision) *Fix {
	if works(d) || d.Symptom == policy.UnknownServer || d.Symptom == policy.DependsOnServer {
		return nil
	}
	f := finder{base: w, now: now, query: d.Query()}
	for _, f.weaken = range []bool{false, true} {
		for depth := 1; depth <= deepest; depth++ {
			if f.try(w, candidate{narrow: true}, depth); f.done() {
				return f.best
			}
		}
	}
	return f.best
}

// works tells whether it does at all endpoints.
func works(d policy.Decision) bool {
	failing, _ := d.Reach()
	return d.Verdict == policy.OK && failing == 0
}

// finder looks for a fix.
type finder struct {
	base   *World
	now    time.Time
	query  policy.Query
	weaken bool // candidates that give up encryption are tried too
	best   *Fix
}

// done tells whether nothing better can be found.
func (f *finder) done() bool {
	return f.best != nil && len(f.best.Breaks) == 0 && f.best.failing == 0
}

// try applies candidates to a world, in which others were applied already.
func (f *finder) try(w *World, before candidate, depth int) {
	for _, c := range f.candidates(w) {
		if f.done() {
			return
		}
		next, err := f.applied(w, c)
		if err != nil {
			continue // not for this mesh
		}
		c = before.and(c)
		d := next.Resolve(f.query)
		if f.helps(d) {
			f.consider(next, c)
		}
		if !works(d) && depth > 1 {
			f.try(next, c, depth-1)
		}
	}
}

// helps tells whether a candidate is worth to be told: it mends the whole, and
// fails at fewer endpoints than before.
func (f *finder) helps(d policy.Decision) bool {
	before, _ := f.base.Resolve(f.query).Reach()
	after, _ := d.Reach()
	return d.Verdict == policy.OK && (after == 0 || after < before)
}

// and is one candidate after another.
func (c candidate) and(next candidate) candidate {
	if c.text == "" {
		return next
	}
	return candidate{c.text + "; and " + next.text, c.weakens || next.weakens, append(c.edits[:len(c.edits):len(c.edits)], next.edits...), c.narrow && next.narrow}
}

func (f *finder) applied(w *World, c candidate) (*World, error) {
	for _, e := range c.edits {
		o, err := e.object(w)
		if err != nil {
			return nil, err
		}
		w = w.With(f.now, o)
		for _, p := range w.Problems() {
			if p.Object == o.Ref().String() && !p.Warning {
				return nil, p
			}
		}
	}
	return w, nil
}

// consider keeps a candidate that mends, if it is better than the best so far.
func (f *finder) consider(w *World, c candidate) {
	fix := &Fix{Text: c.text, Weakens: c.weakens, Breaks: f.breaks(w, c), Also: f.also(w, c)}
	for _, e := range c.edits {
		change, err := e.change()
		if err != nil {
			return
		}
		fix.Changes = append(fix.Changes, change)
	}
	fix.failing, _ = w.Resolve(f.query).Reach()
	if f.best == nil || len(fix.Breaks) < len(f.best.Breaks) || len(fix.Breaks) == len(f.best.Breaks) && fix.failing < f.best.failing {
		f.best = fix
	}
}

// most is how many broken pairs, or other servers, are named.
const most = 5

func (f *finder) breaks(w *World, c candidate) (names []string) {
	for change := range changes(f.base, w, f.scope(c)) {
		at := ""
		if len(change.At) > 0 {
			at = " at " + strings.Join(change.At, ", ")
		}
		if change.Kind == Breaks || change.Kind == BreaksAtSome {
			names = append(names, fmt.Sprintf("%s to %s%s", strings.Join(change.Clients, ", "), strings.Join(change.Servers, ", "), at))
		}
		if len(names) == most {
			break
		}
	}
	return names
}

// scope is the namespace whose servers a candidate concerns; empty for all.
func (f *finder) scope(c candidate) string {
	if c.narrow {
		return namespaceOf(f.base, f.query)
	}
	return ""
}

func (f *finder) also(w *World, c candidate) (names []string) {
	for _, server := range servers(f.base, w, f.scope(c)) {
		q := policy.Query{Client: f.query.Client, Server: server}
		before, after := f.base.Resolve(q), w.Resolve(q)
		same := before.Server == after.Server && before.Client == after.Client
		if target := f.query.Server; same || server.Host == target.Host && server.Port == target.Port {
			continue
		}
		if names = append(names, fmt.Sprintf("%s:%d", server.Host, server.Port)); len(names) == most {
			break
		}
	}
	return names
}

// namespaceOf is the namespace of the server that a query asks for.
func namespaceOf(w *World, q policy.Query) string {
	ref, _ := w.Resolve(q).Declares()
	return ref.Namespace
}

// candidates are the changes that may mend what is asked in a world, the best
// first.
func (f *finder) candidates(w *World) []candidate {
	t := target{w: w, whole: w.Resolve(f.query)}
	t.d = w.failingOne(t.whole)
	t.ref, t.declared = t.d.Declares()
	if w.Generation() == policy.Legacy {
		return t.legacy(f.weaken)
	}
	if t.d.Server == policy.Disable && (t.d.ServerBy.Reason == policy.NoSidecar || t.d.ServerBy.Reason == policy.External) {
		return t.originate(policy.TLSDisable)
	}
	if !f.query.Client.Sidecar {
		return t.permissive()
	}
	var all []candidate
	if t.d.Client != policy.TLSIstioMutual {
		all = append(all, t.originate(policy.TLSIstioMutual)...)
	}
	if t.d.Server == policy.Disable || f.weaken {
		all = append(all, t.permissive()...)
	}
	if f.weaken {
		all = append(all, t.originate(policy.TLSDisable)...)
	}
	return all
}

// failingOne is what holds as a whole when that is a conflict, else at the first
// endpoint that fails.
func (w *World) failingOne(whole policy.Decision) policy.Decision {
	if whole.Verdict == policy.Conflict {
		return whole
	}
	for _, m := range whole.Met() {
		if m.Verdict == policy.Conflict {
			q := whole.Query()
			q.Server.Endpoint = m.Endpoint
			return w.Resolve(q)
		}
	}
	return whole
}

// target is the connection that is to be mended.
type target struct {
	w        *World
	d        policy.Decision // that fails: of the server, or of one endpoint of it
	whole    policy.Decision // of the server
	ref      policy.Ref      // declares the server
	declared bool            // its port too
}

func (t *target) host() string             { return t.d.Query().Server.Host }
func (t *target) port() int32              { return t.d.Query().Server.Port }
func (t *target) name() string             { return fmt.Sprintf("%s:%d", t.host(), t.port()) }
func (t *target) object() policy.Object    { return t.w.objects[t.ref] }
func (t *target) service() *policy.Service { s, _ := t.object().(*policy.Service); return s }
func (t *target) several() bool            { return len(portsOf(t.object())) > 1 }
func (t *target) short() string {
	short, _, _ := strings.Cut(strings.TrimLeft(t.host(), "*."), ".")
	return short
}
func (t *target) portText() string { return fmt.Sprint(t.port()) }

// unused is a name for a new object.
func (t *target) unused(kind policy.Kind, namespace, name string) policy.Ref {
	for i := 1; ; i++ {
		ref := policy.Ref{Kind: kind, Namespace: namespace, Name: name}
		if i > 1 {
			ref.Name = fmt.Sprintf("%s-%d", name, i)
		}
		if t.w.objects[ref] == nil {
			return ref
		}
	}
}

// newObject is what every object begins with.
func newObject(apiVersion string, ref policy.Ref, spec map[string]any) edit {
	metadata := map[string]any{"name": ref.Name}
	if ref.Namespace != "" {
		metadata["namespace"] = ref.Namespace
	}
	return edit{ref: ref, create: map[string]any{"apiVersion": apiVersion, "kind": ref.Kind.String(), "metadata": metadata, "spec": spec}}
}
