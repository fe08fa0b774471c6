package mesh

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"citadel/ca/policy"
)

// Caller stands for clients that policy cannot tell apart: workloads of one
// namespace with or without a sidecar and, where rules choose their clients, with
// the same of the labels that they choose by.
type Caller struct {
	Client    policy.Client
	Workloads int    // how many there are
	Example   string // the name of one
}

// Name is what people call it: the namespace, with what sets it apart.
func (c *Caller) Name() string {
	var about []string
	if !c.Client.Sidecar {
		about = append(about, "no sidecar")
	}
	for _, key := range slices.Sorted(maps.Keys(c.Client.Labels)) {
		about = append(about, key+"="+c.Client.Labels[key])
	}
	if len(about) == 0 {
		return c.Client.Namespace
	}
	return c.Client.Namespace + " (" + strings.Join(about, ", ") + ")"
}

// key tells callers apart.
func (c *Caller) key() string { return fmt.Sprintf("%s\x00%t", c.Name(), !c.Client.Sidecar) }

// Callers lists all clients of the mesh, by namespace, those with a sidecar first.
func (w *World) Callers() []*Caller {
	chosen := w.chosenLabels()
	byKey := map[string]*Caller{}
	for _, one := range w.workloads("") {
		c := chosen.caller(one)
		if known := byKey[c.key()]; known != nil {
			known.Workloads++
			continue
		}
		byKey[c.key()] = c
	}
	return slices.SortedFunc(maps.Values(byKey), compareCallers)
}

func compareCallers(a, b *Caller) int {
	return cmp.Or(strings.Compare(a.Client.Namespace, b.Client.Namespace), strings.Compare(a.key(), b.key()))
}

// labelKeys are the labels that rules choose their clients by, by namespace.
type labelKeys map[string]map[string]bool

// chosenLabels looks at rules with a workloadSelector, which hold in their own
// namespace alone.
func (w *World) chosenLabels() labelKeys {
	keys := labelKeys{}
	for ref, o := range w.objects {
		rule, is := o.(*policy.DestinationRule)
		if !is || rule.Spec.WorkloadSelector == nil {
			continue
		}
		if keys[ref.Namespace] == nil {
			keys[ref.Namespace] = map[string]bool{}
		}
		for key := range rule.Spec.WorkloadSelector.MatchLabels {
			keys[ref.Namespace][key] = true
		}
	}
	return keys
}

func (k labelKeys) caller(one workload) *Caller {
	c := &Caller{policy.Client{Namespace: one.ref.Namespace, Sidecar: one.sidecar}, 1, one.ref.Name}
	for key := range k[one.ref.Namespace] {
		if value, has := one.labels[key]; has {
			if c.Client.Labels == nil {
				c.Client.Labels = map[string]string{}
			}
			c.Client.Labels[key] = value
		}
	}
	return c
}

// Found is what a client's name stands for: workloads, some of which policy may
// tell apart.
type Found struct {
	Kinds     []policy.Client // at least one
	Workloads []string        // their names
}

// Clients finds the workloads of a name: the Pod or WorkloadEntry that is called
// so; else those behind a Service of that name; else those of the service
// account; else those labelled as the app; else those whose names begin so. An
// error of a name that nobody has is ErrUnknown.
func (w *World) Clients(name ClientName) (Found, error) {
	all := w.workloads(name.Namespace)
	for _, is := range w.meanings(name) {
		var f Found
		for _, one := range all {
			if is(one) {
				f.add(one)
			}
		}
		if len(f.Kinds) > 0 {
			return f, nil
		}
	}
	return Found{}, fmt.Errorf("client %s %w: namespace %s has no Pod or WorkloadEntry that is called so, none behind a Service, of a service account or with a label app of that name", name, ErrUnknown, name.Namespace)
}

func (w *World) meanings(name ClientName) []func(workload) bool {
	account := func(one workload) bool { return one.account == name.Name }
	if name.account {
		return []func(workload) bool{account}
	}
	var selector map[string]string
	if s, is := w.objects[policy.Ref{Kind: policy.KindService, Namespace: name.Namespace, Name: name.Name}].(*policy.Service); is {
		selector = s.Spec.Selector
	}
	return []func(workload) bool{
		func(one workload) bool { return one.ref.Name == name.Name },
		func(one workload) bool { return matches(selector, one.labels) },
		account,
		func(one workload) bool {
			return one.labels["app"] == name.Name || one.labels["app.kubernetes.io/name"] == name.Name
		},
		func(one workload) bool { return strings.HasPrefix(one.ref.Name, name.Name+"-") },
	}
}

func (f *Found) add(one workload) {
	f.Workloads = append(f.Workloads, one.ref.Name)
	c := policy.Client{Namespace: one.ref.Namespace, ServiceAccount: one.account, Sidecar: one.sidecar, Labels: one.labels}
	if !slices.ContainsFunc(f.Kinds, func(k policy.Client) bool {
		return k.Sidecar == c.Sidecar && k.ServiceAccount == c.ServiceAccount && maps.Equal(k.Labels, c.Labels)
	}) {
		f.Kinds = append(f.Kinds, c)
	}
}
