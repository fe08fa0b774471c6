package policy

// consolidated is the one value of the legacy generation that drives both sides.
func (c *call) consolidated() (AuthPolicy, Origin) {
	if auth := c.svc.ports[c.port].auth; auth != AuthUnset {
		return auth, Origin{Reason: ByObject, Ref: c.svc.ref, Port: c.q.Server.Port}
	}
	if c.s.mesh.auth == AuthUnset {
		return AuthNone, because(ByDefault)
	}
	return c.s.mesh.auth, because(ByAuthPolicy)
}

// legacyServer leaves ports that no Service declares alone.
func (c *call) legacyServer() (Mode, Origin) {
	if c.port < 0 {
		return Disable, because(ByDefault)
	}
	auth, by := c.consolidated()
	if auth == AuthMutualTLS {
		return Strict, by
	}
	return Disable, by
}

// legacyClient never looks at whether the server has a sidecar.
func (c *call) legacyClient() (TLS, Origin) {
	switch {
	case c.svc.external && !c.svc.externalName:
		return TLSDisable, because(External)
	case c.port < 0:
		return TLSDisable, because(ByDefault)
	case c.svc.headless && !isHTTP(c.svc.ports[c.port].protocol):
		return TLSDisable, because(Headless)
	}
	auth, by := c.consolidated()
	switch {
	case auth == AuthNone:
		return TLSDisable, by
	case c.s.mesh.excluded[c.q.Server.Host]:
		return TLSDisable, because(ExcludedByMesh)
	}
	return TLSIstioMutual, by
}

func isHTTP(protocol string) bool {
	switch protocol {
	case "http", "http2", "grpc", "grpc-web", "h2c":
		return true
	}
	return false
}
