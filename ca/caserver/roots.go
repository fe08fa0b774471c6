package caserver

import (
	"crypto/x509"
	"sync"

	"google.golang.org/grpc"

	citadelv1 "citadel/proto/citadel/v1"

	"citadel/ca/trust"
)

// roots are what the server trusts and hands out, and who waits for others.
type roots struct {
	mu    sync.Mutex
	state rootState     // guarded by mu
	ended chan struct{} // closed when nobody need wait any longer
	once  sync.Once
}

type rootState struct {
	certs   []*x509.Certificate
	pem     string                        // the bundle that goes into each reply
	message *citadelv1.WatchRootsResponse // one for all that watch
	changed chan struct{}                 // closed when this is no longer the state
}

func (r *roots) now() rootState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *roots) end() { r.once.Do(func() { close(r.ended) }) }

// SetRoots replaces what the server trusts and hands out, and tells those that
// watch. Roots that are the same change nothing.
func (s *Server) SetRoots(certs []*x509.Certificate) {
	message := &citadelv1.WatchRootsResponse{Signer: s.set.Authority.Signer().Cert().Raw}
	for _, cert := range certs {
		message.Roots = append(message.Roots, cert.Raw)
	}
	r := &s.roots
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended == nil {
		r.ended = make(chan struct{})
	}
	if r.state.changed != nil {
		if trust.SameRoots(r.state.certs, certs) {
			return
		}
		close(r.state.changed)
	}
	r.state = rootState{certs: certs, pem: string(trust.MarshalCertificates(certs)), message: message, changed: make(chan struct{})}
}

// WatchRoots sends the roots at once and whenever they change. They are public:
// anyone may watch who could reach the handshake, which shows them anyway.
func (s *Server) WatchRoots(_ *citadelv1.WatchRootsRequest, stream grpc.ServerStreamingServer[citadelv1.WatchRootsResponse]) error {
	for {
		state := s.roots.now()
		sent := make(chan error, 1)
		// Not on this goroutine: its stack would stay as large as sending makes it.
		go func() { sent <- stream.Send(state.message) }()
		if err := <-sent; err != nil {
			return err
		}
		select {
		case <-state.changed:
		case <-s.roots.ended:
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
