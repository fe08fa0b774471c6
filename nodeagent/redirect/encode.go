package redirect

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// tableName is our table's, in either family.
const tableName = "citadel"

// register is the one that all expressions use.
const register = 1

func (f Family) kernel() *nftables.Table {
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	if f == IPv4 {
		t.Family = nftables.TableFamilyIPv4
	}
	return t
}

// kernel is the chain as the kernel has it, without its rules.
func (c Chain) kernel(t *nftables.Table) *nftables.Chain {
	k := &nftables.Chain{Name: c.Name, Table: t, Type: nftables.ChainTypeNAT, Priority: nftables.ChainPriorityNATDest}
	switch c.Hook {
	case Output:
		k.Hooknum = nftables.ChainHookOutput
	case Prerouting:
		k.Hooknum = nftables.ChainHookPrerouting
	case Input:
		k.Hooknum, k.Type, k.Priority = nftables.ChainHookInput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter
	case Leaving:
		k.Hooknum, k.Type, k.Priority = nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter
	case Tracked:
		k.Hooknum, k.Type, k.Priority = nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityMangle
	default:
		return &nftables.Chain{Name: c.Name, Table: t}
	}
	accept := nftables.ChainPolicyAccept
	k.Policy = &accept
	return k
}

// kernel is the rule as the kernel has it.
func (r Rule) kernel(t *nftables.Table, c *nftables.Chain) *nftables.Rule {
	k := &nftables.Rule{Table: t, Chain: c, UserData: userdata.AppendString(nil, userdata.TypeComment, r.Comment)}
	for _, m := range r.When {
		all := m.expressions()
		if t.Family == nftables.TableFamilyIPv4 && m.Field == Destination && m.Prefix.Bits() > 0 {
			all = all[ofFamily:] // nft aborts where it is to list this in a table of the family
		}
		k.Exprs = append(k.Exprs, all...)
	}
	k.Exprs = append(k.Exprs, r.Do.expressions(t)...)
	return k
}

// The numbers of the kernel's headers that golang.org/x/sys has no names for.
const (
	loopbackDevice = 772 // ARPHRD_LOOPBACK
	localAddress   = 2   // RTN_LOCAL
	destinationNAT = 32  // IPS_DST_NAT
)

func (m Match) expressions() []expr.Any {
	holds := expr.CmpOpEq
	if m.Not {
		holds = expr.CmpOpNeq
	}
	is := func(data []byte) *expr.Cmp { return &expr.Cmp{Op: holds, Register: register, Data: data} }
	switch m.Field {
	case TCP:
		return isTCP(holds)
	case Opens:
		const syn, all = 0x02, 0x17 // flags of RFC 9293 section 3.1: FIN 1, SYN 2, RST 4, ACK 16
		return append(isTCP(expr.CmpOpEq), header(13, 1), masked([]byte{all}), is([]byte{syn}))
	case ByLoopback:
		return []expr.Any{meta(expr.MetaKeyOIFTYPE), is(native16(loopbackDevice))}
	case FromLoopback:
		return []expr.Any{meta(expr.MetaKeyIIFTYPE), is(native16(loopbackDevice))}
	case ForThisHost:
		return []expr.Any{&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true}, is(native32(localAddress))}
	case Redirected:
		return []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: register}, masked(native32(destinationNAT)), is(native32(destinationNAT))}
	case Destination:
		return destination(m.Prefix)
	case DestinationPort:
		return append(isTCP(expr.CmpOpEq), header(2, 2), within(m.Ports))
	case UID:
		return []expr.Any{meta(expr.MetaKeySKUID), is(native32(m.ID))}
	case GID:
		return []expr.Any{meta(expr.MetaKeySKGID), is(native32(m.ID))}
	}
	return nil
}

func meta(key expr.MetaKey) *expr.Meta { return &expr.Meta{Key: key, Register: register} }

// isTCP goes before whatever reads a header of TCP, for nft to read it as one.
func isTCP(holds expr.CmpOp) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyL4PROTO), &expr.Cmp{Op: holds, Register: register, Data: []byte{unix.IPPROTO_TCP}}}
}

func header(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
}

func masked(mask []byte) *expr.Bitwise {
	n := len(mask)
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(n), Mask: mask, Xor: make([]byte, n)}
}

func native16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
func native32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func big16(n uint16) []byte    { return binary.BigEndian.AppendUint16(nil, n) }

func within(p Ports) expr.Any {
	if p.First == p.Last {
		return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: big16(p.First)}
	}
	return &expr.Range{Op: expr.CmpOpEq, Register: register, FromData: big16(p.First), ToData: big16(p.Last)}
}

// ofFamily is how many expressions compare the family.
const ofFamily = 2

// destination compares the family, and the part of the address that the network gives, where its
// header has it. Only whole bytes are read where these do, as nft itself does.
func destination(p netip.Prefix) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	all := []expr.Any{meta(expr.MetaKeyNFPROTO), &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{family}}}
	if p.Bits() == 0 {
		return all
	}
	address, mask := p.Addr().AsSlice(), net.CIDRMask(p.Bits(), p.Addr().BitLen())
	if p.Bits()%8 == 0 {
		address = address[:p.Bits()/8]
	}
	all = append(all, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(address))})
	if p.Bits()%8 != 0 {
		all = append(all, masked(mask))
	}
	return append(all, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: address})
}

func (a Action) expressions(t *nftables.Table) []expr.Any {
	port := &expr.Immediate{Register: register, Data: big16(a.Port)}
	switch a.Verb {
	case ToAgent:
		return []expr.Any{port, &expr.Redir{RegisterProtoMin: register, RegisterProtoMax: register, Flags: expr.NF_NAT_RANGE_PROTO_SPECIFIED}}
	case ToAgentHere:
		return []expr.Any{port, &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(t.Family), RegProtoMin: register, RegProtoMax: register, Specified: true}}
	case Refuse:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	case ForgetSoon:
		return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: soonName}}
	default:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	}
}

// soonName is of the timeouts for ForgetSoon.
const soonName = "soon"

// soon are the timeouts of the host, but for connections that were reset.
func soon(t *nftables.Table) *nftables.NamedObj {
	clear(expr.CtStateTCPTimeoutDefaults) // the library would send what it takes for them: the kernel knows the host's
	return &nftables.NamedObj{Table: t, Name: soonName, Type: nftables.ObjTypeCtTimeout,
		Obj: &expr.CtTimeout{L3Proto: unix.NFPROTO_IPV4, L4Proto: unix.IPPROTO_TCP, Policy: expr.CtStatePolicyTimeout{expr.CtStateTCPCLOSE: 1}}}
}

// fingerprint is equal for rules that are the same to the kernel.
func fingerprint(k *nftables.Rule) (string, error) {
	sum := append([]byte(nil), k.UserData...)
	for _, e := range k.Exprs {
		data, err := expr.Marshal(byte(k.Table.Family), e)
		if err != nil {
			return "", fmt.Errorf("compare a rule: %w", err)
		}
		sum = append(sum, data...)
	}
	return string(sum), nil
}
