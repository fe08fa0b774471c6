package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/secretcontroller"
)

// The flags of citadel whose values citadelctl has to be told, by the names and
// with the defaults that they have there.
const (
	trustDomainFlag = "trust-domain"
	graceRatioFlag  = "workload-cert-grace-period-ratio"
	minGraceFlag    = "workload-cert-min-grace-period"
	jitterFlag      = "workload-cert-rotation-jitter"
)

// domainFlag is the trust domain, where it is given.
type domainFlag struct {
	trustDomain string

	td spiffeid.TrustDomain // of trustDomain, checked
}

func (f *domainFlag) check() error {
	if f.trustDomain == "" {
		return nil
	}
	var err error
	if f.td, err = spiffeid.TrustDomainFromString(f.trustDomain); err != nil || strings.Contains(f.trustDomain, "/") {
		return fmt.Errorf("--%s %q is no SPIFFE trust domain: use lower-case letters, digits, dots, dashes and underscores", trustDomainFlag, f.trustDomain)
	}
	return nil
}

// ruleFlags are what Secrets are judged by.
type ruleFlags struct {
	domainFlag
	rotation secretcontroller.Rotation
}

func (f *ruleFlags) addTrustDomain(flags *pflag.FlagSet) {
	flags.StringVar(&f.trustDomain, trustDomainFlag, "", "SPIFFE trust `domain` that certificates must be of; empty: the roots'")
}

func (f *ruleFlags) addRotation(flags *pflag.FlagSet) {
	d := secretcontroller.DefaultRotation()
	flags.Float64Var(&f.rotation.GraceRatio, graceRatioFlag, d.GraceRatio, "as citadel is told: part of the life before the end in which a certificate is renewed")
	flags.DurationVar(&f.rotation.MinGrace, minGraceFlag, d.MinGrace, "as citadel is told: least that this period may be")
	flags.Float64Var(&f.rotation.Jitter, jitterFlag, d.Jitter, "as citadel is told: part of the life over which renewals are spread")
}

// validate reports all that is wrong at once.
func (f *ruleFlags) validate() error {
	problems := []error{f.domainFlag.check()}
	problems = append(problems, checkRatio(graceRatioFlag, f.rotation.GraceRatio), checkRatio(jitterFlag, f.rotation.Jitter))
	if f.rotation.MinGrace < 0 {
		problems = append(problems, fmt.Errorf("--%s %s is negative", minGraceFlag, f.rotation.MinGrace))
	}
	return errors.Join(problems...)
}

func checkRatio(flag string, ratio float64) error {
	if !(ratio >= 0 && ratio <= 1) { // NaN too
		return fmt.Errorf("--%s %v must be between 0 and 1", flag, ratio)
	}
	return nil
}
