package caserver

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"citadel/ca"
	"citadel/ca/policy"
	"citadel/ca/policyfeed"
	citadelv1 "citadel/proto/citadel/v1"
)

// Explain answers one question.
func (s *policyServer) Explain(ctx context.Context, req *citadelv1.ExplainRequest) (reply *citadelv1.ExplainResponse, err error) {
	err = s.answer(ctx, "Explain", func(caller policyCaller) error {
		state, err := s.known(caller)
		if err != nil {
			return err
		}
		q := queryOf(req)
		if q.Server.Host == "" || q.Client.Namespace == "" {
			return &ca.Error{Class: ca.CSRError, Reason: "the question lacks the client's namespace or the server's host"}
		}
		snapshot, warnings := state.Snapshot, state.Warnings()
		if !caller.reader {
			if q.Client.Namespace != caller.namespace {
				return &ca.Error{Class: ca.Denied, Reason: fmt.Sprintf("%s may ask about clients of namespace %s alone: "+
					"citadel's --policy-readers names who may ask about all", caller.id, caller.namespace)}
			}
			snapshot, warnings = s.set.Feed.View(caller.namespace).Snapshot(), state.Facts()
		}
		reply = explained(state, snapshot.Resolve(q), warnings)
		return nil
	})
	return reply, err
}

func queryOf(req *citadelv1.ExplainRequest) policy.Query {
	c, s := req.GetClient(), req.GetServer()
	return policy.Query{
		Client: policy.Client{Namespace: c.GetNamespace(), ServiceAccount: c.GetServiceAccount(), Sidecar: c.GetSidecar(), Labels: c.GetLabels()},
		Server: policy.Server{Host: s.GetHost(), Port: s.GetPort(), Subset: s.GetSubset(), Endpoint: s.GetEndpoint()},
	}
}

func explained(state *policyfeed.State, d policy.Decision, warnings []policy.Warning) *citadelv1.ExplainResponse {
	e := d.Explain()
	reply := &citadelv1.ExplainResponse{Version: state.Version, Generation: state.Snapshot.Generation().String(), Picked: e.Picked,
		Server: sideOf(e.Server), Client: sideOf(e.Client), Verdict: e.Verdict.String(), Symptom: string(e.Symptom),
		Identities: e.Identities, Sni: e.SNI, Alpn: e.ALPN}
	if state.Asked == policy.Auto && reply.Picked == "" { // a view is told which
		reply.Picked = "citadel picks it by what exists in the mesh"
	}
	reply.Warnings = warningsOf(append(e.Warnings, warnings...))
	for _, f := range e.Failing {
		reply.Failing = append(reply.Failing, &citadelv1.FailingEndpoint{Endpoint: f.Endpoint, Server: f.Server.String(), ServerBy: f.ServerBy, Client: f.Client.String()})
	}
	if ref, port := d.Declares(); ref != (policy.Ref{}) {
		reply.DeclaredBy, reply.PortDeclared = nameOf(ref), port
	}
	for _, at := range d.Endpoints() {
		endpoint := &citadelv1.PolicyEndpoint{Name: at.Name, Labels: at.Labels, Sidecar: at.Sidecar, Port: at.Port}
		if at.Ref != (policy.Ref{}) {
			endpoint.Object = nameOf(at.Ref)
		}
		reply.Endpoints = append(reply.Endpoints, endpoint)
	}
	return reply
}

func warningsOf(warnings []policy.Warning) (all []*citadelv1.PolicyWarning) {
	for _, w := range warnings {
		all = append(all, &citadelv1.PolicyWarning{Code: w.Code, Message: w.Message})
	}
	return all
}

func sideOf(s policy.Side) *citadelv1.PolicySide {
	side := &citadelv1.PolicySide{Says: s.Says, By: s.By}
	for _, o := range s.Shadowed {
		side.Shadowed = append(side.Shadowed, &citadelv1.ShadowedObject{Object: o.Object, Says: o.Says, Why: o.Why})
	}
	return side
}

// ListObjects sends everything to a reader.
func (s *policyServer) ListObjects(_ *citadelv1.ListObjectsRequest, stream grpc.ServerStreamingServer[citadelv1.ListObjectsResponse]) error {
	return s.answer(stream.Context(), "ListObjects", func(caller policyCaller) error {
		if !caller.reader {
			return &ca.Error{Class: ca.Denied, Reason: fmt.Sprintf("%s may not see all of the mesh: citadel's --policy-readers names who may", caller.id)}
		}
		state, err := s.known(caller)
		if err != nil {
			return err
		}
		u := &update{}
		u.objects(state.Items())
		u.last()
		for i, part := range u.parts {
			message := &citadelv1.ListObjectsResponse{Objects: part.Objects}
			if i == len(u.parts)-1 {
				message.Complete, message.Version, message.Generation = true, state.Version, state.Asked.String()
				message.Problems, message.Warnings = state.Problems(), warningsOf(state.Warnings())
			}
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		return nil
	})
}
