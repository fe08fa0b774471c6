package policy

// Endpoint is a workload behind a service, as a Decision sees it.
type Endpoint struct {
	Ref     Ref    // the Pod or WorkloadEntry; zero for one that a ServiceEntry lists itself
	Name    string // what Server.Endpoint calls it
	Labels  map[string]string
	Sidecar bool
	Address string // an IP address, or a name where a WorkloadEntry has one; may be empty
	Port    int32  // behind the service port that was asked for; 0 when no container declares it
}

// Endpoints lists the workloads behind the server that was asked for, by name;
// none when nobody declares it. The labels are not the caller's to change.
func (d Decision) Endpoints() (all []Endpoint) {
	if d.snapshot == nil {
		return nil
	}
	svc := d.snapshot.find(d.query.Server.Host, d.query.Client.Namespace)
	if svc == nil {
		return nil
	}
	at := svc.port(d.query.Server.Port)
	for _, w := range svc.endpoints {
		if name := d.query.Server.Endpoint; name != "" && name != w.name {
			continue
		}
		e := Endpoint{Ref: w.ref, Name: w.name, Labels: w.labels, Sidecar: w.sidecar, Address: w.address(), Port: d.query.Server.Port}
		if at >= 0 {
			e.Port = w.portOf(&svc.ports[at])
		}
		all = append(all, e)
	}
	return all
}

// Declares names the object that declares the server which was asked for, the
// zero Ref when there is none, and tells whether it declares the port too: a
// Service of type ExternalName that lists none has all.
func (d Decision) Declares() (ref Ref, port bool) {
	if d.snapshot == nil {
		return Ref{}, false
	}
	svc := d.snapshot.find(d.query.Server.Host, d.query.Client.Namespace)
	if svc == nil {
		return Ref{}, false
	}
	anyPort := svc.externalName && len(svc.ports) == 0
	return svc.ref, anyPort || svc.port(d.query.Server.Port) >= 0
}

// Query is what was asked.
func (d Decision) Query() Query { return d.query }

// RootNamespace is the mesh's: what is said there holds everywhere.
func (s *Snapshot) RootNamespace() string { return s.mesh.root }
