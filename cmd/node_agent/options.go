package main

import (
	"time"

	"github.com/spf13/pflag"

	"citadel/ca/caclient"
	"citadel/cmd/internal/daemon"
)

// options are the flags as given, by section. validate turns them into a
// config.
type options struct {
	flags *daemon.Flags

	address      string
	serverName   string
	rootFile     string
	fingerprints string

	joinFile  string
	adoptFrom string
	tokenFile string

	key, chain, root string
	owner, group     string
	keyMode          string
	certMode         string

	ttl      time.Duration
	keyType  string
	keySize  int
	org      string
	id       string
	env      string
	platform string

	reloadCommand string
	reloadSignal  string
	reloadUnit    string

	policy         bool
	configFile     string
	stateDir       string
	socket         string
	monitoringPort int
	logFormat      string
	logLevel       string
	logAsJSON      bool

	enforces bool         // the file has the key
	enforce  *enforcement // what it says; nil also where that is wrong
}

// The places that the unit of systemd/ has too.
const (
	stateFolder   = "/var/lib/istio-auth-node-agent"
	controlSocket = "/run/istio-auth-node-agent/control.sock"
	certsFolder   = "/etc/certs"
)

func newOptions(flags *daemon.Flags) *options {
	o := &options{flags: flags}
	flags.Structured(keyEnforce, o.readEnforce)
	o.authorityFlags(flags.Section("Certificate authority"))
	o.proofFlags(flags.Section("Joining"))
	o.fileFlags(flags.Section("Files"))
	o.certificateFlags(flags.Section("Certificate"))
	o.reloadFlags(flags.Section("After each renewal"))
	o.agentFlags(flags.Section("Agent, monitoring and logs"))
	o.retiredFlags(flags.Section("Retired"))
	return o
}

func (o *options) authorityFlags(f *pflag.FlagSet) {
	f.StringVar(&o.address, "ca-address", "istio-citadel:8060", "`HOST:PORT` of the CSR API (environment CITADEL_ADDRESS too); a join token brings its own")
	f.StringVar(&o.serverName, "ca-server-name", caclient.DefaultServerName, "name that the CA's certificate must bear, whatever the address")
	f.StringVar(&o.rootFile, "ca-root", "", "`file` of roots, PEM, by which the CA is known beside --root-cert's")
	f.StringVar(&o.fingerprints, "ca-fingerprint", "", "SHA-256 `sums` of roots by which the CA is known, hexadecimal, comma-separated")
}

func (o *options) proofFlags(f *pflag.FlagSet) {
	f.StringVar(&o.joinFile, "join-token-file", "", "`file` of a join token, read again when it is needed; empty: credential citadel-join-token of the unit")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` of a token of a Kubernetes service account or of an OIDC issuer, read again when it is needed")
}

func (o *options) fileFlags(f *pflag.FlagSet) {
	f.StringVar(&o.key, "key", certsFolder+"/key.pem", "`file` of the private key (environment CERTS_DIR names another folder for all three)")
	f.StringVar(&o.chain, "cert-chain", certsFolder+"/cert-chain.pem", "`file` of the certificate and its issuers")
	f.StringVar(&o.root, "root-cert", certsFolder+"/root-cert.pem", "`file` of the roots")
	f.StringVar(&o.adoptFrom, "adopt-from", "", "`folder` of key.pem, cert-chain.pem and root-cert.pem, as a mounted Secret istio.<service account>, to begin with while those files are not there")
	f.StringVar(&o.owner, "owner", "", "`user` who owns the files; empty: who runs the agent")
	f.StringVar(&o.group, "group", "", "`group` of the files; empty: that of who runs the agent")
	f.StringVar(&o.keyMode, "key-mode", "0600", "mode of the key's file, at most 0640")
	f.StringVar(&o.certMode, "cert-mode", "0644", "mode of the other files, at most 0644")
	o.flags.Alias(f, "onprem-cert-chain", "cert-chain")
	o.flags.Alias(f, "onprem-key", "key")
	o.flags.Alias(f, "onprem-root-cert", "root-cert")
}

func (o *options) certificateFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.ttl, "workload-cert-ttl", 19*time.Hour, "life of the certificate; it is renewed at half of it")
	f.StringVar(&o.keyType, "key-type", "ecdsa-p256", "key: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	f.IntVar(&o.keySize, "key-size", 0, "size of an RSA key, 2048, 3072 or 4096, in place of --key-type; 0: as that says")
	f.StringVar(&o.org, "org", "", "organization in the request; the CA does not certify it")
	f.StringVar(&o.id, "spiffe-id", "", "`SPIFFE ID` that this host must be; empty: what it is already, or else what the CA says")
	f.StringVar(&o.env, "env", "unspecified", "where the host runs: unspecified or onprem")
	f.StringVar(&o.platform, "platform", "vm", "vm")
}

func (o *options) reloadFlags(f *pflag.FlagSet) {
	f.StringVar(&o.reloadCommand, "reload-command", "", "`command` for /bin/sh that makes programs read the files; tried again until it succeeds")
	f.StringVar(&o.reloadSignal, "reload-signal", "", "`PIDFILE:SIGNAL` to send instead, as /run/nginx.pid:HUP")
	f.StringVar(&o.reloadUnit, "reload-unit", "", "`unit` of systemd to reload instead, or to restart if it cannot")
}

func (o *options) agentFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.policy, "policy", true, "keep what the CA says of mTLS policy (citadel --policy), also over restarts")
	f.StringVar(&o.configFile, "config", "", "YAML `file` of flags, by their names, and of key enforce: which connections the agent carries")
	f.StringVar(&o.stateDir, "state-dir", "", "`folder` for what is kept beside the files; empty: $STATE_DIRECTORY, or "+stateFolder)
	f.StringVar(&o.socket, "control-socket", controlSocket, "`socket` of node_agent status and renew; empty: none")
	f.IntVar(&o.monitoringPort, "monitoring-port", 15016, "`port` on loopback of /metrics, /healthz, /readyz and /version; 0 or less: none")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json, on standard error")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&o.logAsJSON, "log_as_json", false, "the same as --log-format json")
}

// retiredFlags keeps units of the ancestors working.
func (o *options) retiredFlags(f *pflag.FlagSet) {
	const (
		logs  = "use --log-format and --log-level"
		cloud = "cloud credentials have not been accepted by any Citadel since 1.0"
	)
	for name, why := range map[string]string{
		"gcp-root-cert": cloud, "gcp-ca-address": cloud, "aws-root-cert": cloud,
		"log_output_level": logs, "log_target": logs, "log_stacktrace_level": logs, "log_caller": logs, "log_rotate": logs,
		"log_rotate_max_age": logs, "log_rotate_max_backups": logs, "log_rotate_max_size": logs,
		"v": logs, "vmodule": logs, "stderrthreshold": logs, "log_dir": logs, "log_backtrace_at": logs,
	} {
		o.flags.Retired(f, name, why, false)
	}
	for name, why := range map[string]string{
		"experimental-dual-use": "the CA decides (citadel --experimental-dual-use)", "logtostderr": logs, "alsologtostderr": logs,
	} {
		o.flags.Retired(f, name, why, true)
	}
}
