package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"

	"citadel/ca/policy"
)

// ErrUnknown is within errors about a name that nothing in the mesh has.
var ErrUnknown = errors.New("is not known")

// ClientName is whom a person means by a client. The zero value is nobody.
type ClientName struct {
	Namespace string
	Name      string // of a workload, Service, service account or app; empty: any workload of the namespace
	account   bool   // Name is a service account's
}

// ClientForms is how clients are written.
const ClientForms = "write NAME.NAMESPACE (sleep.legacy; NAME of a Pod, WorkloadEntry, Service, service account or app), NAMESPACE/SERVICE_ACCOUNT or a SPIFFE ID"

// ParseClient reads NAME.NAMESPACE, NAME in a namespace that is given,
// NAMESPACE/SERVICE_ACCOUNT, or a SPIFFE ID of a service account.
func ParseClient(text, namespace string) (ClientName, error) {
	c, problem := ClientName{Namespace: namespace, Name: text}, ""
	switch {
	case strings.Contains(text, "://"):
		id, err := spiffeid.FromString(text)
		if err != nil {
			return ClientName{}, fmt.Errorf("client %q is no SPIFFE ID: %w", text, err)
		}
		parts := strings.Split(id.Path(), "/")
		if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
			return ClientName{}, fmt.Errorf("client %q is no service account's SPIFFE ID: %s", text, ClientForms)
		}
		c = ClientName{parts[2], parts[4], true}
	case strings.Contains(text, "/"):
		before, after, _ := strings.Cut(text, "/")
		c = ClientName{before, after, true}
	case strings.Contains(text, "."):
		i := strings.LastIndexByte(text, '.')
		c = ClientName{Namespace: text[i+1:], Name: text[:i]}
	}
	if all := validation.IsDNS1123Subdomain(c.Name); len(all) > 0 {
		problem = fmt.Sprintf("%q is no name: %s", c.Name, all[0])
	} else if all := validation.IsDNS1123Label(c.Namespace); len(all) > 0 {
		problem = fmt.Sprintf("%q is no namespace: %s", c.Namespace, all[0])
	}
	if problem != "" {
		return ClientName{}, fmt.Errorf("client %q: %s: %s", text, problem, ClientForms)
	}
	return c, nil
}

// String is how messages call the client.
func (c ClientName) String() string {
	if c.account {
		return c.Namespace + "/" + c.Name
	}
	return c.Name + "." + c.Namespace
}

// ServerName is whom a person means by a server. The zero value is nobody.
type ServerName struct {
	Host     string // as far as it was written
	Absolute bool   // it is whole, for it ends in a dot
	Port     string // a number or a name; empty: the only one
}

// ServerForms is how servers are written.
const ServerForms = "write HOST:PORT (httpbin.default:8000), the host as a client would, the port by its number or name at the Service"

// ParseServer reads HOST[:PORT].
func ParseServer(text string) (ServerName, error) {
	host, port, has := strings.Cut(text, ":")
	s := ServerName{Host: strings.ToLower(host), Port: port}
	s.Host, s.Absolute = strings.CutSuffix(s.Host, ".")
	switch all := validation.IsDNS1123Subdomain(s.Host); {
	case strings.Contains(host, "*"):
		return ServerName{}, fmt.Errorf("server %q: name one host, without an asterisk: %s", text, ServerForms)
	case len(all) > 0:
		return ServerName{}, fmt.Errorf("server %q: %q is no host: %s: %s", text, host, all[0], ServerForms)
	case has && portProblem(port) != "":
		return ServerName{}, fmt.Errorf("server %q: %s: %s", text, portProblem(port), ServerForms)
	}
	return s, nil
}

func portProblem(text string) string {
	number, err := strconv.Atoi(text)
	switch digits := text != "" && strings.Trim(text, "0123456789") == ""; {
	case digits && (err != nil || number < 1 || number > 65535):
		return fmt.Sprintf("port %s is not in the range 1..65535", text)
	case !digits && len(validation.IsDNS1123Label(text)) > 0:
		return fmt.Sprintf("%q is neither the number nor the name of a port", text)
	}
	return ""
}

// String is how the server was written.
func (s ServerName) String() string {
	text := s.Host
	if s.Absolute {
		text += "."
	}
	if s.Port != "" {
		text += ":" + s.Port
	}
	return text
}

// Server finds the host and port of a name, as the DNS of a Pod in a namespace
// would. Errors of names that nobody has are ErrUnknown.
func (w *World) Server(name ServerName, namespace string) (policy.Server, error) {
	declaring := func(host string) policy.Object {
		d := w.Resolve(policy.Query{Client: policy.Client{Namespace: namespace}, Server: policy.Server{Host: host}})
		ref, _ := d.Declares()
		return w.objects[ref]
	}
	var hosts []string
	if !name.Absolute {
		const domain = ".svc." + policy.ClusterDomain
		hosts = []string{name.Host + "." + namespace + domain, name.Host + domain, name.Host + "." + policy.ClusterDomain, name.Host}
	}
	for _, host := range hosts { // before wildcards of others, which match anything
		if service, is := declaring(host).(*policy.Service); is {
			return w.port(name, host, service)
		}
	}
	if o := declaring(name.Host); o != nil {
		return w.port(name, name.Host, o)
	}
	return policy.Server{}, fmt.Errorf("server %s %w: no Service, ServiceEntry or EgressRule declares it%s", name, ErrUnknown, w.near(name.Host))
}

// port chooses the port of a host.
func (w *World) port(name ServerName, host string, o policy.Object) (policy.Server, error) {
	ports := portsOf(o)
	server := policy.Server{Host: host}
	if number, err := strconv.Atoi(name.Port); err == nil {
		declared := func(p namedPort) bool { return p.number == int32(number) }
		if len(ports) == 0 || slices.ContainsFunc(ports, declared) { // one that declares none may be called at any
			server.Port = int32(number)
			return server, nil
		}
	}
	if name.Port == "" && len(ports) == 1 {
		server.Port = ports[0].number
		return server, nil
	}
	if i := slices.IndexFunc(ports, func(p namedPort) bool { return p.name == name.Port }); i >= 0 && name.Port != "" {
		server.Port = ports[i].number
		return server, nil
	}
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strings.TrimSuffix(fmt.Sprintf("%d %s", p.number, p.name), " ")
	}
	if name.Port == "" {
		return policy.Server{}, fmt.Errorf("server %s: give the port, %s has these: %s", name, o.Ref(), strings.Join(texts, ", "))
	}
	return policy.Server{}, fmt.Errorf("port %s of server %s %w: %s has no port %[1]s, it has these: %[5]s", name.Port, name.Host, ErrUnknown, o.Ref(), strings.Join(texts, ", "))
}

type namedPort struct {
	number int32
	name   string
}

// portsOf lists what a server's object declares.
func portsOf(o policy.Object) (ports []namedPort) {
	switch o := o.(type) {
	case *policy.Service:
		for _, p := range o.Spec.Ports {
			ports = append(ports, namedPort{p.Port, p.Name})
		}
	case *policy.ServiceEntry:
		for _, p := range o.Spec.Ports {
			ports = append(ports, namedPort{p.Number, p.Name})
		}
	case *policy.EgressRule:
		for _, p := range o.Spec.Ports {
			ports = append(ports, namedPort{p.Port, ""})
		}
	}
	return ports
}

// near names Services that may be meant.
func (w *World) near(host string) string {
	name, _, _ := strings.Cut(host, ".")
	var found []string
	for ref := range w.objects {
		if ref.Kind == policy.KindService && ref.Name == name {
			found = append(found, ref.Name+"."+ref.Namespace)
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return ": do you mean " + strings.Join(found[:min(len(found), 5)], " or ") + "?"
}
