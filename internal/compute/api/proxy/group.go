package proxy

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
)

// groupDoc is a security group of the network API.
type groupDoc struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Project     string    `json:"project_id"`
	Description string    `json:"description"`
	Rules       []ruleDoc `json:"security_group_rules"`
}

// ruleDoc is one of its rules.
type ruleDoc struct {
	ID          string  `json:"id,omitempty"`
	Group       string  `json:"security_group_id"`
	Direction   string  `json:"direction"`
	EtherType   string  `json:"ethertype"`
	Protocol    *string `json:"protocol"`
	PortMin     *int    `json:"port_range_min"`
	PortMax     *int    `json:"port_range_max"`
	RemoteIP    *string `json:"remote_ip_prefix"`
	RemoteGroup *string `json:"remote_group_id"`
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

// ruleView shows a rule as compute did: a protocol without ports means all of them.
func ruleView(rule ruleDoc, groups map[string]groupDoc) document {
	d := document{"id": rule.ID, "parent_group_id": rule.Group, "ip_protocol": nil, "from_port": nil, "to_port": nil, "group": document{}, "ip_range": document{}}
	if rule.Protocol != nil && *rule.Protocol != "" {
		d["ip_protocol"] = *rule.Protocol
		switch {
		case rule.PortMin != nil || rule.PortMax != nil:
			d["from_port"], d["to_port"] = rule.PortMin, rule.PortMax
		case strings.EqualFold(*rule.Protocol, "tcp") || strings.EqualFold(*rule.Protocol, "udp"):
			d["from_port"], d["to_port"] = 1, 65535
		default:
			d["from_port"], d["to_port"] = -1, -1
		}
	}
	switch {
	case rule.RemoteGroup != nil && *rule.RemoteGroup != "":
		if g, ok := groups[*rule.RemoteGroup]; ok {
			d["group"] = document{"name": g.Name, "tenant_id": g.Project}
		}
	case rule.RemoteIP != nil && *rule.RemoteIP != "":
		d["ip_range"] = document{"cidr": *rule.RemoteIP}
	case rule.EtherType == "IPv6":
		d["ip_range"] = document{"cidr": "::/0"}
	default:
		d["ip_range"] = document{"cidr": "0.0.0.0/0"}
	}
	return d
}

// groupView shows a group with its rules about incoming traffic: compute's groups had no others.
func groupView(g groupDoc, groups map[string]groupDoc) document {
	rules := []document{}
	for _, rule := range g.Rules {
		if rule.Direction == "ingress" {
			rules = append(rules, ruleView(rule, groups))
		}
	}
	return document{"id": g.ID, "name": g.Name, "tenant_id": g.Project, "description": g.Description, "rules": rules}
}

// groups reads groups; by id too, for the names of remote ones.
func (a api) groups(r *httpapi.Request, q url.Values) ([]groupDoc, map[string]groupDoc, error) {
	var doc struct {
		Groups []groupDoc `json:"security_groups"`
	}
	if err := a.Network.call(r, "GET", "/security-groups", q, nil, &doc); err != nil {
		return nil, nil, err
	}
	byID := map[string]groupDoc{}
	for _, g := range doc.Groups {
		byID[g.ID] = g
	}
	return doc.Groups, byID, nil
}

func (a api) listGroups(r *httpapi.Request) (*httpapi.Reply, error) {
	q := own(r)
	if r.Query().Has("all_tenants") && r.Caller.IsAdmin() {
		q = nil
	}
	list, byID, err := a.groups(r, q)
	if err != nil {
		return nil, err
	}
	if list, err = backend.Offset(a.Backend, r.Query(), list); err != nil {
		return nil, err
	}
	out := make([]document, len(list))
	for i, g := range list {
		out[i] = groupView(g, byID)
	}
	return reply("security_groups", out), nil
}

// listServerGroups gives the groups that the server's ports have.
func (a api) listServerGroups(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-security-groups:list"))
	if err != nil {
		return nil, err
	}
	var doc struct{ Ports []portDoc }
	if err := a.Network.call(r, "GET", "/ports", url.Values{"device_id": {s.ID}}, nil, &doc); err != nil {
		return nil, err
	}
	q := url.Values{}
	for _, p := range doc.Ports {
		for _, g := range p.Groups {
			if !slices.Contains(q["id"], g) {
				q.Add("id", g)
			}
		}
	}
	out := []document{}
	if len(q) > 0 {
		list, byID, err := a.groups(r, q)
		if err != nil {
			return nil, err
		}
		for _, g := range list {
			out = append(out, groupView(g, byID))
		}
	}
	return reply("security_groups", out), nil
}

// group reads the group of the path.
func (a api) group(r *httpapi.Request) (groupDoc, error) {
	name, err := uuid(r, fault.Invalid, "Security group")
	if err != nil {
		return groupDoc{}, err
	}
	var doc struct {
		Group groupDoc `json:"security_group"`
	}
	err = a.Network.call(r, "GET", "/security-groups/"+name, nil, nil, &doc)
	return doc.Group, err
}

func (a api) showGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	g, err := a.group(r)
	if err != nil {
		return nil, err
	}
	_, byID, err := a.groups(r, own(r))
	if err != nil {
		return nil, err
	}
	return reply("security_group", groupView(g, byID)), nil
}

func (a api) createGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.writeGroup(r, "POST", "")
}

func (a api) updateGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	g, err := a.group(r)
	if err != nil {
		return nil, err
	}
	return a.writeGroup(r, "PUT", "/"+g.ID)
}

func (a api) writeGroup(r *httpapi.Request, method, path string) (*httpapi.Reply, error) {
	in, err := decode[struct{ Name, Description string }](r, "security_group")
	if err != nil {
		return nil, err
	}
	for what, text := range map[string]string{"name": in.Name, "description": in.Description} {
		if n := len([]rune(strings.TrimSpace(text))); n > 255 || what == "name" && n == 0 {
			return nil, fault.New(fault.Invalid, "Security group %s must have 1 to 255 characters.", what)
		}
	}
	var doc struct {
		Group groupDoc `json:"security_group"`
	}
	body := document{"security_group": document{"name": in.Name, "description": in.Description}}
	if err := a.Network.call(r, method, "/security-groups"+path, nil, body, &doc); err != nil {
		return nil, conflictIsInvalid(err)
	}
	_, byID, err := a.groups(r, own(r))
	if err != nil {
		return nil, err
	}
	return reply("security_group", groupView(doc.Group, byID)), nil
}

// conflictIsInvalid turns the network service's 409 into the 400 that these routes have.
func conflictIsInvalid(err error) error {
	if fault.KindOf(err) == fault.Conflict {
		return fault.Wrap(err, fault.Invalid, "%s", fault.PublicText(err))
	}
	return err
}

func (a api) deleteGroup(r *httpapi.Request) (*httpapi.Reply, error) {
	name, err := uuid(r, fault.Invalid, "Security group")
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, conflictIsInvalid(a.Network.call(r, "DELETE", "/security-groups/"+name, nil, nil, nil))
}

// ruleRequest is the body of a new rule; its values may be texts, numbers or null.
type ruleRequest struct {
	Parent   string  `json:"parent_group_id"`
	Group    *string `json:"group_id"`
	Protocol any     `json:"ip_protocol"`
	From     any     `json:"from_port"`
	To       any     `json:"to_port"`
	CIDR     any     `json:"cidr"`
}

// protocols are those that compute's rules know, with the greatest value of their ports (or ICMP types and codes).
var protocols = map[string]int{"tcp": 65535, "udp": 65535, "icmp": 255}

// rule checks a request and makes the network service's rule of it.
func (in ruleRequest) rule() (ruleDoc, error) {
	out := ruleDoc{Group: in.Parent, Direction: "ingress", EtherType: "IPv4", RemoteGroup: in.Group}
	if !id.IsUUID(in.Parent) {
		return out, fault.New(fault.Invalid, "Parent group id is not a UUID.")
	}
	if in.CIDR != nil && in.CIDR != "" {
		text, _ := in.CIDR.(string)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return out, fault.New(fault.Invalid, "Invalid CIDR %v.", in.CIDR)
		}
		out.RemoteIP = &text
		if p.Addr().Is6() {
			out.EtherType = "IPv6"
		}
	}
	if in.Protocol == nil {
		if in.Group != nil && in.From == nil && in.To == nil {
			return out, nil
		}
		return out, fault.New(fault.Invalid, "Not enough parameters to build a valid rule.")
	}
	text, _ := in.Protocol.(string)
	text = strings.ToLower(text)
	most, ok := protocols[text]
	if !ok {
		return out, fault.New(fault.Invalid, "Invalid IP protocol %v. Give tcp, udp or icmp.", in.Protocol)
	}
	if out.EtherType == "IPv6" && text == "icmp" {
		text = "ipv6-icmp"
	}
	out.Protocol = &text
	from, err := port(in.From, most)
	if err != nil {
		return out, err
	}
	to, err := port(in.To, most)
	if err != nil {
		return out, err
	}
	if most > 255 && (from == nil || to == nil || *from > *to || *from < 1) && (from != nil || to != nil || in.Group == nil) {
		return out, fault.New(fault.Invalid, "Invalid port range %v:%v. Valid TCP and UDP ports are 1 to 65535, the first not above the last.", orNone(in.From), orNone(in.To))
	}
	out.PortMin, out.PortMax = from, to
	return out, nil
}

// port reads a port, or an ICMP type or code; -1 and null are any.
func port(v any, most int) (*int, error) {
	var n int
	var err error
	switch v := v.(type) {
	case nil:
		return nil, nil //nolint:nilnil // no port is a value here
	case json.Number:
		n, err = strconv.Atoi(v.String())
	case float64:
		n = int(v)
	case string:
		n, err = strconv.Atoi(v)
	default:
		err = fault.Invalid
	}
	if err != nil || n < -1 || n > most {
		return nil, fault.New(fault.Invalid, "Input port %v is not an integer from -1 to %d.", v, most)
	}
	if n == -1 {
		return nil, nil //nolint:nilnil // any port
	}
	return &n, nil
}

func (a api) createRule(r *httpapi.Request) (*httpapi.Reply, error) {
	in, err := decode[ruleRequest](r, "security_group_rule")
	if err != nil {
		return nil, err
	}
	rule, err := in.rule()
	if err != nil {
		return nil, err
	}
	var doc struct {
		Rule ruleDoc `json:"security_group_rule"`
	}
	if err := a.Network.call(r, "POST", "/security-group-rules", nil, document{"security_group_rule": rule}, &doc); err != nil {
		return nil, conflictIsInvalid(err)
	}
	_, byID, err := a.groups(r, own(r))
	if err != nil {
		return nil, err
	}
	return reply("security_group_rule", ruleView(doc.Rule, byID)), nil
}

func (a api) deleteRule(r *httpapi.Request) (*httpapi.Reply, error) {
	name, err := uuid(r, fault.Invalid, "Rule")
	if err != nil {
		return nil, err
	}
	return &httpapi.Reply{}, a.Network.call(r, "DELETE", "/security-group-rules/"+name, nil, nil, nil)
}

// orNone is how clients know a value that was not given.
func orNone(v any) any {
	if v == nil {
		return "None"
	}
	return v
}
