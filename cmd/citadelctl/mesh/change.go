package mesh

import "citadel/ca/policy"

// changeOf is what happens to a pair, of kind "" for nothing that matters. Where
// endpoints are not alike, what happens at the worst of them counts.
func changeOf(was, is policy.Decision, newClient bool) PairChange {
	c := PairChange{Kind: kindOf(was, is, newClient)}
	if c.Kind == New && !works(is) && is.Verdict == policy.OK { // as a whole, but for some endpoints
		c.Kind = NewConflict
	}
	if appears := newClient || was.Symptom == policy.UnknownServer; !appears && (!was.Even() || !is.Even()) {
		c = atEndpoints(c.Kind, was, is)
	}
	if c.Kind != "" {
		c.Before, c.After = newCell(was), newCell(is)
	}
	return c
}

// kindOf is what happens to a pair as a whole.
func kindOf(was, is policy.Decision, newClient bool) ChangeKind {
	before, after := stateOf(was.Verdict, was.Client, was.Symptom), stateOf(is.Verdict, is.Client, is.Symptom)
	switch appears := newClient || was.Symptom == policy.UnknownServer; {
	case appears && is.Symptom == policy.UnknownServer:
		return ""
	case appears && after == fails:
		return NewConflict
	case appears:
		return New
	}
	return kindBetween(before, after)
}

// state is what becomes of a connection.
type state int

const (
	fails  state = iota
	open         // works, in plain text
	closed       // works, or may work with a server outside of the mesh, encrypted
)

func stateOf(v policy.Verdict, client policy.TLS, shows policy.Symptom) state {
	switch {
	case v != policy.OK && shows != policy.DependsOnServer:
		return fails
	case client == policy.TLSDisable:
		return open
	}
	return closed
}

func kindBetween(before, after state) ChangeKind {
	switch {
	case before == after:
		return ""
	case after == fails:
		return Breaks
	case before == fails:
		return Mends
	case after == open:
		return LosesEncryption
	}
	return GainsEncryption
}

// atEndpoints is the worst that happens at any endpoint. An endpoint that is new
// counts as if it had been like the service as a whole.
func atEndpoints(whole ChangeKind, was, is policy.Decision) PairChange {
	before, anyone := map[string]state{}, stateOf(was.Verdict, was.Client, was.Symptom)
	for _, m := range was.Met() {
		before[m.Endpoint] = stateOf(m.Verdict, m.Client, m.Symptom)
	}
	at := map[ChangeKind][]string{}
	now := is.Met()
	for _, m := range now {
		old, known := before[m.Endpoint]
		if !known {
			old = anyone
		}
		kind := kindBetween(old, stateOf(m.Verdict, m.Client, m.Symptom))
		at[kind] = append(at[kind], m.Endpoint)
	}
	if len(now) == 0 {
		return PairChange{Kind: whole}
	}
	for _, kind := range []ChangeKind{Breaks, LosesEncryption, Mends, GainsEncryption} {
		switch n := len(at[kind]); {
		case n == len(now):
			return PairChange{Kind: kind}
		case n > 0:
			return PairChange{Kind: partly(kind), At: at[kind], Of: len(now)}
		}
	}
	return PairChange{}
}

// partly is a kind that holds for some endpoints and not for all.
func partly(kind ChangeKind) ChangeKind {
	switch kind {
	case Breaks:
		return BreaksAtSome
	case Mends:
		return MendsAtSome
	}
	return kind
}
