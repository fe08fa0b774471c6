package main

import (
	"strings"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/policy"
)

// policyOptions are the flags of the policy service.
type policyOptions struct {
	policy           bool
	policyGeneration string
	policyReaders    string

	generation policy.Generation
	readers    []spiffeid.ID
}

func (o *options) policyFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.policy, "policy", false, "watch what decides about mTLS, and tell node agents and readers of it on the port of the CSR API; with --state-dir, from its folder policy")
	f.StringVar(&o.policyGeneration, "policy-generation", "auto", "whose rules answer: legacy, v1alpha1, v1, or auto: by what exists")
	f.StringVar(&o.policyReaders, "policy-readers", "", "comma-separated `NAMESPACE/SERVICE_ACCOUNT`s that see the policy of the whole mesh; others see what their namespace needs")
}

func (c *config) checkPolicy() {
	var err error
	if c.generation, err = policy.ParseGeneration(c.policyGeneration); err != nil {
		c.flags.Problem("policy-generation", "%v", err)
	}
	for _, name := range list(c.policyReaders) {
		namespace, account, _ := strings.Cut(name, "/")
		id, err := ca.ServiceAccountID(c.td, namespace, account)
		if err != nil || strings.Contains(account, "/") {
			c.flags.Problem("policy-readers", "%q is not of the form NAMESPACE/SERVICE_ACCOUNT", name)
		}
		c.readers = append(c.readers, id)
	}
	if c.policy && c.grpcPort <= 0 {
		c.flags.Problem("policy", "is served on the port of the CSR API: give %s too", c.flags.Name("grpc-port"))
	}
	if c.policy && len(c.scope.Listed) > 0 {
		c.flags.Problem("policy", "needs to see every namespace, and %s is for who may not: give one of them", c.flags.Name("listened-namespaces"))
	}
}
