package enforce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// SOCKS is the Front of programs that speak SOCKS 5, RFC 1928. It asks for no
// password, knows no command but CONNECT, and takes names and addresses: names
// are better, for policy knows services by them.
func SOCKS(c *net.TCPConn) (Target, []byte, func(error) error, error) {
	to, err := askSOCKS(c)
	if err != nil {
		closeGently(c)
		return Target{}, nil, nil, err
	}
	return to, nil, func(err error) error { return answerSOCKS(c, repliesTo(err)) }, nil
}

// The numbers of RFC 1928.
const (
	socksVersion = 5

	noAuthentication = 0x00 // section 3
	noneAcceptable   = 0xFF

	commandConnect = 1 // section 4

	typeIPv4 = 1 // section 5
	typeName = 3
	typeIPv6 = 4

	replyDone             = 0 // section 6
	replyFailure          = 1
	replyNotAllowed       = 2
	replyNoNetwork        = 3
	replyNoHost           = 4
	replyRefused          = 5
	replyTimeout          = 6
	replyNoSuchCommand    = 7
	replyNoSuchTypeOfHost = 8
)

// askSOCKS leads the talk up to the client's request. It reads no byte beyond:
// what follows is for the destination. What it cannot serve, it answers.
func askSOCKS(c io.ReadWriter) (Target, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:2]); err != nil {
		return Target{}, unsaid(err)
	}
	if head[0] != socksVersion {
		return Target{}, badRequest("no SOCKS 5: it begins with %#x", head[0])
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(c, methods); err != nil {
		return Target{}, unsaid(err)
	}
	if !strings.Contains(string(methods), "\x00") {
		_, _ = c.Write([]byte{socksVersion, noneAcceptable}) // it is refused in any case
		return Target{}, badRequest("the client insists on a password, and there is none to give")
	}
	if _, err := c.Write([]byte{socksVersion, noAuthentication}); err != nil {
		return Target{}, failure{PeerReset, err}
	}
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return Target{}, unsaid(err)
	}
	switch {
	case head[0] != socksVersion || head[2] != 0:
		return Target{}, badRequest("no request of SOCKS 5: % x", head)
	case head[1] != commandConnect:
		_ = answerSOCKS(c, replyNoSuchCommand)
		return Target{}, badRequest("SOCKS command %d is not served, CONNECT alone is", head[1])
	}
	return readSOCKSTarget(c, head[3])
}

func readSOCKSTarget(c io.ReadWriter, kind byte) (to Target, err error) {
	size := map[byte]int{typeIPv4: net.IPv4len, typeIPv6: net.IPv6len}[kind]
	if kind == typeName {
		var length [1]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return Target{}, unsaid(err)
		}
		size = int(length[0])
	}
	if size == 0 {
		_ = answerSOCKS(c, replyNoSuchTypeOfHost)
		return Target{}, badRequest("SOCKS address of type %d, and length %d", kind, size)
	}
	text := make([]byte, size+2)
	if _, err := io.ReadFull(c, text); err != nil {
		return Target{}, unsaid(err)
	}
	host, port := text[:size], binary.BigEndian.Uint16(text[size:])
	if kind == typeName {
		to, err = targetOf(string(host), port)
	} else {
		addr, _ := netip.AddrFromSlice(host)
		to, err = targetAt(addr, port)
	}
	if err != nil {
		_ = answerSOCKS(c, replyFailure)
	}
	return to, err
}

// answerSOCKS ends the talk. The address that the connection goes out from is
// left open, as nobody needs it.
func answerSOCKS(c io.Writer, reply byte) error {
	_, err := c.Write([]byte{socksVersion, reply, 0, typeIPv4, 0, 0, 0, 0, 0, 0})
	return err
}

// repliesTo is the reply for why a destination was not reached.
func repliesTo(err error) byte {
	var nobody *net.DNSError
	switch {
	case err == nil:
		return replyDone
	case errors.Is(err, os.ErrDeadlineExceeded) || reasonOf(err, "") == Slow:
		return replyTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return replyRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return replyNoNetwork
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.As(err, &nobody):
		return replyNoHost
	}
	switch reasonOf(err, Unreachable) {
	case NoPolicy, UnknownHost, WrongIdentity, UntrustedPeer, ServerRefusedTLS:
		return replyNotAllowed // policy has led there
	}
	return replyFailure
}

// targetOf is the target of a name, or of an address that was written as one.
func targetOf(host string, port uint16) (Target, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return targetAt(addr, port)
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) == 0 || len(name) > longestName || strings.ContainsFunc(name, notOfNames) || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
		return Target{}, badRequest("%q is no name of a host", host)
	}
	if port == 0 {
		return Target{}, badRequest("port 0 of %s", name)
	}
	return Target{Host: strings.ToLower(name), Port: port}, nil
}

func targetAt(addr netip.Addr, port uint16) (Target, error) {
	if addr = addr.Unmap(); addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" || port == 0 {
		return Target{}, badRequest("nobody can be called at %s", netip.AddrPortFrom(addr, port))
	}
	return Target{Addr: addr, Port: port}, nil
}

// longestName is DNS's, RFC 1035 2.3.4, as text.
const longestName = 253

// notOfNames finds what no host's name has: those of other alphabets go by their
// ASCII form, RFC 5890.
func notOfNames(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

func badRequest(format string, args ...any) error {
	return failure{BadRequest, fmt.Errorf(format, args...)}
}

// unsaid gives the errors of reading a request their word.
func unsaid(err error) error {
	switch {
	case isTimeout(err):
		return failure{Slow, errors.New("the client did not say in time where it wants to go")}
	case isEnd(err):
		return failure{PeerReset, errors.New("the client went before it said where it wants to go")}
	}
	return failure{BadRequest, err}
}
