package main

import (
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// apiOptions are the flags of the CSR API.
type apiOptions struct {
	grpcPort      int
	hosts         string
	certFile      string
	keyFile       string
	renewExpired  time.Duration
	callerRate    float64
	callerBurst   int
	allRate       float64
	inFlight      int
	serverNames   []string
	serverAddrs   []netip.Addr
	audiences     string
	reviewTTL     time.Duration
	oidcIssuer    string
	oidcAudience  string
	oidcKeys      string
	nodeAccounts  string
	tokenAudience []string
	trustedNodes  []string
}

func (o *options) apiFlags(f *pflag.FlagSet) {
	f.IntVar(&o.grpcPort, "grpc-port", 8060, "`port` of the CSR API; 0 or less: none")
	f.StringVar(&o.hosts, "grpc-host-identities", "istio-ca,istio-citadel", "comma-separated `names` and addresses by which clients dial the CSR API, added to istio-citadel, which agents look for, and the names of its Service")
	f.StringVar(&o.certFile, "grpc-cert-file", "", "serving certificate and its chain, PEM, instead of one that citadel issues to itself")
	f.StringVar(&o.keyFile, "grpc-key-file", "", "key of --grpc-cert-file, PEM")
	f.DurationVar(&o.renewExpired, "renew-expired-for", 72*time.Hour, "for how long after its end a certificate still lets its holder renew it; 0: not at all")
	f.Float64Var(&o.callerRate, "grpc-caller-rate", 20, "certificates a second that one pod or host may ask for; 0: any number")
	f.IntVar(&o.callerBurst, "grpc-caller-burst", 100, "certificates that one may ask for at once")
	f.Float64Var(&o.allRate, "grpc-rate", 0, "certificates a second that all together may ask for; 0: any number")
	f.IntVar(&o.inFlight, "grpc-max-in-flight", 1000, "requests worked on at once; more are told to try again")
	f.StringVar(&o.audiences, "token-audiences", "istio-ca", "comma-separated audiences, one of which a Kubernetes token must be for")
	f.DurationVar(&o.reviewTTL, "token-review-ttl", time.Minute, "how soon a deleted service account's or pod's token is refused at the latest; up to 10s: the API server is asked each time")
	f.StringVar(&o.oidcIssuer, "oidc-issuer", "", "issuer `URL` of OIDC tokens of service accounts; empty: none are accepted")
	f.StringVar(&o.oidcAudience, "oidc-audience", "istio-ca", "audience that an OIDC token must be for")
	f.StringVar(&o.oidcKeys, "oidc-jwks-uri", "", "`URL` of the issuer's keys; empty: the issuer tells")
	f.StringVar(&o.nodeAccounts, "trusted-node-accounts", "", "comma-separated `NAMESPACE/SERVICE_ACCOUNT`s of node proxies that may ask for the workloads of their node")
	o.flags.Alias(f, "grpc-hostname", "grpc-host-identities")
}

func (c *config) checkAPI() {
	if c.grpcPort > 65535 {
		c.flags.Problem("grpc-port", "%d is no port", c.grpcPort)
	}
	if c.serverOnly && c.grpcPort <= 0 {
		c.flags.Problem("server-only", "leaves nothing to do without the CSR API: give --grpc-port too")
	}
	if (c.certFile == "") != (c.keyFile == "") {
		c.flags.Problem("grpc-cert-file", "and --grpc-key-file go together: give both or none")
	}
	for flag, file := range map[string]string{"grpc-cert-file": c.certFile, "grpc-key-file": c.keyFile} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			c.flags.Problem(flag, "%v", err)
		}
	}
	if c.renewExpired < 0 {
		c.flags.Problem("renew-expired-for", "%s is negative", c.renewExpired)
	}
	if c.reviewTTL < 0 {
		c.flags.Problem("token-review-ttl", "%s is negative", c.reviewTTL)
	}
	c.checkRates()
	c.checkHosts()
	c.tokenAudience = list(c.audiences)
	if len(c.tokenAudience) == 0 {
		c.flags.Problem("token-audiences", "is empty: a token without an audience of ours could be one that somebody gave to another server")
	}
	c.checkNodes()
}

func (c *config) checkRates() {
	for flag, rate := range map[string]float64{"grpc-caller-rate": c.callerRate, "grpc-rate": c.allRate} {
		if !(rate >= 0) || math.IsInf(rate, 0) { // NaN too
			c.flags.Problem(flag, "%v must be zero or more", rate)
		}
	}
	if c.callerBurst < 1 {
		c.flags.Problem("grpc-caller-burst", "%d must be at least 1", c.callerBurst)
	}
	if c.inFlight < 1 {
		c.flags.Problem("grpc-max-in-flight", "%d must be at least 1", c.inFlight)
	}
}

// checkHosts adds to the names of the flag the one that agents look for whatever
// they dial (compatibility 5.1), and those of the Service.
func (c *config) checkHosts() {
	for _, name := range list(c.hosts) {
		if addr, err := netip.ParseAddr(name); err == nil {
			c.serverAddrs = append(c.serverAddrs, addr)
			continue
		}
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			c.flags.Problem("grpc-host-identities", "%q is neither a DNS name nor an address: %s", name, problems[0])
		}
		c.serverNames = append(c.serverNames, name)
	}
	if !slices.Contains(c.serverNames, agentsName) {
		c.serverNames = append(c.serverNames, agentsName)
	}
	service := agentsName + "." + c.namespace
	c.serverNames = append(c.serverNames, service, service+".svc", service+".svc.cluster.local")
}

// agentsName is the server's name for agents, ours and the ancestor's.
const agentsName = "istio-citadel"

func (c *config) checkNodes() {
	for _, name := range list(c.nodeAccounts) {
		namespace, account, ok := strings.Cut(name, "/")
		if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(account)) > 0 {
			c.flags.Problem("trusted-node-accounts", "%q is not of the form NAMESPACE/SERVICE_ACCOUNT", name)
		}
		c.trustedNodes = append(c.trustedNodes, name)
	}
}

// list splits a comma-separated flag; empty parts do not count.
func list(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
