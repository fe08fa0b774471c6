package authn

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
)

// Server vouches for this process itself, which needs a certificate to serve
// with.
func Server(id spiffeid.ID) ca.Caller { return ca.NewCaller(id, "own server", "") }

// OnBehalf is the caller for which a node proxy asks. That the proxy may, the
// node's pods have shown.
func OnBehalf(node Identity, workload spiffeid.ID) ca.Caller {
	return ca.NewCaller(workload, "node proxy", "asked for by "+node.Caller.ID().String()+" in pod "+
		node.Pod.Namespace+"/"+node.Pod.Name+" (UID "+node.Pod.UID+")")
}
