package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
)

// config is what the flags say, checked.
type config struct {
	*options
	dir          certdir.Dir
	addressGiven bool
	pins         []string
	kind         trust.KeyType
	spiffeID     spiffeid.ID
	reload       reload
}

// validate checks every flag, and reports all that is wrong at once.
func (o *options) validate(given *pflag.FlagSet) (*config, error) {
	c := &config{options: o, addressGiven: given.Changed("ca-address")}
	c.checkAuthority()
	c.checkFiles()
	c.checkCertificate(given)
	c.checkReload()
	c.checkAgent()
	if problems := o.flags.Problems(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return c, nil
}

// ancestorsVariables are those of the ancestor's start script.
func (o *options) ancestorsVariables(set *pflag.FlagSet) {
	give := func(flag, value, variable string) {
		if !set.Changed(flag) {
			o.flags.SetBy(flag, variable)
			_ = set.Set(flag, value) // a text
		}
	}
	if address := os.Getenv("CITADEL_ADDRESS"); address != "" {
		give("ca-address", address, "CITADEL_ADDRESS")
	}
	if folder := os.Getenv("CERTS_DIR"); folder != "" {
		for _, flag := range []string{"key", "cert-chain", "root-cert"} {
			give(flag, filepath.Join(folder, filepath.Base(set.Lookup(flag).DefValue)), "CERTS_DIR")
		}
	}
}

// isSecret finds tokens in places where people put them by mistake, and where
// others can read them.
func isSecret(text string) bool {
	return strings.HasPrefix(text, "citadel-join") || strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

const tokenInSight = "this is a token itself, and others can see it here: make another, write it to a file, and name that"

var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (c *config) checkAuthority() {
	host, port, err := net.SplitHostPort(c.address)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil || n == 0 {
		c.flags.Problem("ca-address", "%q is not of the form HOST:PORT", c.address)
	}
	if c.serverName == "" {
		c.flags.Problem("ca-server-name", "is empty: any server with a certificate of the root would do")
	}
	for pin := range strings.SplitSeq(c.fingerprints, ",") {
		pin = strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(pin)) // as openssl writes it
		if pin == "" {
			continue
		}
		if !fingerprint.MatchString(pin) {
			c.flags.Problem("ca-fingerprint", "%q is no SHA-256 sum: openssl x509 -noout -fingerprint -sha256 prints one", pin)
		}
		c.pins = append(c.pins, pin)
	}
}

func (c *config) checkFiles() {
	c.dir = certdir.Dir{Key: c.key, Chain: c.chain, Roots: c.root, UID: -1, GID: -1,
		KeyMode: c.mode("key-mode", c.keyMode, 0o640), CertMode: c.mode("cert-mode", c.certMode, 0o644)}
	for flag, path := range map[string]string{"join-token-file": c.joinFile, "token-file": c.tokenFile} {
		if isSecret(path) {
			c.flags.Problem(flag, tokenInSight)
		}
	}
	for flag, path := range map[string]string{"key": c.key, "cert-chain": c.chain, "root-cert": c.root} {
		if path == "" {
			c.flags.Problem(flag, "is empty")
		}
	}
	if c.owner != "" {
		found, err := user.Lookup(c.owner)
		if err == nil {
			c.dir.UID, err = strconv.Atoi(found.Uid)
		} else if n, numberErr := strconv.Atoi(c.owner); numberErr == nil && n >= 0 {
			c.dir.UID, err = n, nil
		}
		if err != nil {
			c.flags.Problem("owner", "%v", err)
		}
	}
	if c.group != "" {
		found, err := user.LookupGroup(c.group)
		if err == nil {
			c.dir.GID, err = strconv.Atoi(found.Gid)
		} else if n, numberErr := strconv.Atoi(c.group); numberErr == nil && n >= 0 {
			c.dir.GID, err = n, nil
		}
		if err != nil {
			c.flags.Problem("group", "%v", err)
		}
	}
}

func (c *config) mode(flag, text string, most fs.FileMode) fs.FileMode {
	n, err := strconv.ParseUint(text, 8, 32)
	if mode := fs.FileMode(n); err == nil && mode&^most == 0 && mode&0o400 != 0 {
		return mode
	}
	c.flags.Problem(flag, "%q is no mode that lets the owner read, and others no more than %#o does", text, uint32(most))
	return 0
}

func (c *config) checkCertificate(given *pflag.FlagSet) {
	if c.ttl < time.Second {
		c.flags.Problem("workload-cert-ttl", "%s is below a second, which certificates cannot express", c.ttl)
	}
	var err error
	if c.kind, err = trust.ParseKeyType(c.keyType); err != nil {
		c.flags.Problem("key-type", "%v", err)
	}
	if c.keySize != 0 {
		if given.Changed("key-type") {
			c.flags.Problem("key-size", "contradicts --key-type: give one of them")
		}
		if c.kind, err = trust.ParseKeyType(fmt.Sprintf("rsa-%d", c.keySize)); err != nil {
			c.flags.Problem("key-size", "%d: use 2048, 3072 or 4096", c.keySize)
		}
	}
	if c.id != "" {
		if c.spiffeID, err = spiffeid.FromString(c.id); err != nil {
			c.flags.Problem("spiffe-id", "%q is no SPIFFE ID: %v", c.id, err)
		}
	}
	switch c.env {
	case "unspecified", "onprem":
	case "gcp", "aws":
		c.flags.Problem("env", "%s: cloud credentials have not been accepted by any Citadel since 1.0; use --token-file or a join token", c.env)
	default:
		c.flags.Problem("env", "%q: use unspecified or onprem", c.env)
	}
	if c.platform != "vm" {
		c.flags.Problem("platform", "%q: this agent is for VMs and bare metal, use vm", c.platform)
	}
}

func (c *config) checkAgent() {
	if c.monitoringPort > 65535 {
		c.flags.Problem("monitoring-port", "%d is no port", c.monitoringPort)
	}
	if c.logAsJSON {
		c.logFormat = "json"
	}
	if c.logFormat != "text" && c.logFormat != "json" {
		c.flags.Problem("log-format", "%q: use text or json", c.logFormat)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.logLevel) {
		c.flags.Problem("log-level", "%q: use debug, info, warn or error", c.logLevel)
	}
	if c.enforces && !c.policy {
		c.flags.Problem("policy", "is off, and key enforce of the configuration file needs it: without policy nobody could be called")
	}
	if len(c.socket) > longestSocket {
		c.flags.Problem("control-socket", "is longer than the %d bytes that the path of a socket may have", longestSocket)
	}
	if c.stateDir == "" {
		c.stateDir, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":") // systemd's; several are separated so
	}
	if c.stateDir == "" {
		c.stateDir = stateFolder
	}
	if folder := os.Getenv("CREDENTIALS_DIRECTORY"); c.joinFile == "" && folder != "" {
		c.joinFile = filepath.Join(folder, joinCredential)
	}
}

// longestSocket is Linux's limit.
const longestSocket = 107

// joinCredential is the unit's credential that holds a join token.
const joinCredential = "citadel-join-token"
