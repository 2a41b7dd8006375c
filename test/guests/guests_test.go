package guests_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"kilonova/test/apart"
)

// One cloud for all: what can share a guest does, and stories go on at once. The order matters where the whole host is stopped.
func TestGuests(t *testing.T) {
	c := newCloud(t)
	t.Run("together", func(t *testing.T) {
		t.Run("visitors", c.visitors)
		t.Run("life", c.life)
		t.Run("moves", c.moves)
		t.Run("machine", c.machine)
	})
	t.Run("refused", c.refused)
	t.Run("restarts", c.restarts)
	t.Run("commands", c.commands)
	t.Run("exact", c.exact)
}

// visitors: what a guest is told, who reaches it, its consoles, what can be changed while it runs, and what a snapshot of it holds.
func (c *cloud) visitors(t *testing.T) {
	t.Parallel()
	gate := c.group(t, "gate")
	a := c.boot(t, "alpha", map[string]any{"imageRef": c.agent, "user_data": script("echo ran as $(id -un) > /root/user-data-ran\n"), "metadata": map[string]string{"role": "first"}})
	b := c.boot(t, "beta", map[string]any{"config_drive": true, "user_data": script("echo from the drive > /root/user-data-ran\n"),
		"security_groups": []any{map[string]string{"name": "default"}, map[string]string{"name": "gate"}}})
	a.ready(t)
	b.wait(t, "ACTIVE")
	for _, x := range []struct {
		name string
		test func(*testing.T)
	}{
		{"metadata service", func(t *testing.T) { toldByService(t, a) }},
		{"security groups", func(t *testing.T) { groups(t, a, b, gate) }},
		{"config drive", func(t *testing.T) { toldByDrive(t, b) }},
		{"outside", func(t *testing.T) { toTheOutside(t, a) }},
		{"spoofing", func(t *testing.T) { spoofing(t, a, b) }},
		{"console log", func(t *testing.T) { consoleLog(t, a) }},
		{"screen", func(t *testing.T) { screen(t, a) }},
		{"SPICE screen", func(t *testing.T) { spiceScreen(t, a) }},
		{"serial console", func(t *testing.T) { serial(t, a) }},
		{"terminal page", func(t *testing.T) { terminal(t, a) }},
		{"interfaces", func(t *testing.T) { interfaces(t, a) }},
		{"password", func(t *testing.T) { password(t, a) }},
		{"posted password", func(t *testing.T) { postedPassword(t, a) }},
		{"diagnostics", func(t *testing.T) { diagnostics(t, a) }},
		{"snapshot", func(t *testing.T) { snapshot(t, a) }},
		{"backups", func(t *testing.T) { backups(t, a) }},
		{"crash dump", func(t *testing.T) { crashDump(t, a) }},
		{"snapshot without the rest that is required", func(t *testing.T) { restless(t, a) }},
	} {
		t.Run(x.name, x.test)
	}
	if !t.Failed() {
		b.delete(t)
		a.delete(t)
		if a.qemu(t) != 0 || b.qemu(t) != 0 {
			t.Error("a deleted server's QEMU runs")
		}
	}
}

const service = "http://169.254.169.254"

func toldByService(t *testing.T, g *guest) {
	g.until(t, "cat /root/user-data-ran", "ran as root")
	if out := g.run(t, "ip -4 -o addr show scope global | awk '{print $4}'"); out != g.addr+"/24" {
		t.Errorf("the guest has the address %s, the port %s", out, g.addr)
	}
	if out := g.run(t, "hostname | cut -d. -f1"); out != "alpha" {
		t.Errorf("the guest's name is %q", out)
	}
	out, err := apart.Shell(g.addr, "kilo", "id -un; cat /root/.ssh/authorized_keys 2>&1 | wc -l", ssh.PublicKeys(g.signer))
	if err != nil || !strings.HasPrefix(out, "kilo") {
		t.Errorf("login as kilo with the key pair: %q %v", out, err)
	}
	m := decode(t, g.run(t, "wget -q -O - "+service+"/openstack/latest/meta_data.json"))
	keys, _ := m["public_keys"].(map[string]any)
	want := map[string]any{"uuid": g.id, "name": "alpha", "meta": map[string]any{"role": "first"}}
	got := map[string]any{"uuid": m["uuid"], "name": m["name"], "meta": m["meta"]}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if k, _ := keys["k"].(string); !strings.HasPrefix(k, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(g.signer.PublicKey())))) {
		t.Errorf("public_keys: %v", m["public_keys"])
	}
	if out := g.run(t, "wget -q -O - "+service+"/latest/meta-data/local-ipv4"); out != g.addr {
		t.Errorf("the EC2 form tells the address %q", out)
	}
	if out := g.run(t, "wget -q -O - "+service+"/openstack/latest/network_data.json"); !strings.Contains(strings.ToLower(out), g.mac) {
		t.Errorf("network_data.json lacks the MAC %s: %s", g.mac, out)
	}
}

func toldByDrive(t *testing.T, g *guest) {
	g.until(t, "cat /root/user-data-ran", "from the drive")
	if out := g.consoleLog(t); !strings.Contains(out, "guest: metadata config-drive uuid "+g.id) {
		t.Errorf("the guest did not read the drive:\n%s", out)
	}
	if out := g.run(t, "hostname | cut -d. -f1"); out != "beta" {
		t.Errorf("the guest's name is %q", out)
	}
	const dir = "/mnt/config/"
	for _, file := range []string{"openstack/latest/meta_data.json", "openstack/latest/network_data.json", "openstack/latest/vendor_data.json", "openstack/2018-08-27/meta_data.json"} {
		drive, served := decode(t, g.run(t, "cat "+dir+file)), decode(t, g.run(t, "wget -q -O - "+service+"/"+file))
		if file == "openstack/latest/meta_data.json" && drive["admin_pass"] == nil {
			t.Error("the drive does not hold the password")
		}
		for _, secret := range []string{"admin_pass", "random_seed"} { // the service never tells the password; the seed is another at each reading
			delete(drive, secret)
			delete(served, secret)
		}
		if d := cmp.Diff(served, drive); d != "" {
			t.Errorf("%s differs between service (-) and drive (+):\n%s", file, d)
		}
	}
	if a, b := g.run(t, "cat "+dir+"openstack/latest/user_data"), g.run(t, "wget -q -O - "+service+"/openstack/latest/user_data"); a != b {
		t.Errorf("user data: %q and %q", a, b)
	}
}

// groups opens and closes the gate of b while it runs. a, which shares the default group with it, reaches it all the time.
func groups(t *testing.T, a, b *guest, gate string) {
	apart.Eventually(t, "beta has booted", func() (string, bool) {
		out := b.consoleLog(t)
		return out, strings.Contains(out, "guest: ready")
	})
	b.reachable(t, false, "without a rule")
	a.works(t, "ping -c 2 -W 5 "+b.addr)
	icmp := b.rule(t, gate, "icmp", 0)
	apart.Eventually(t, "ping goes by its rule", func() (string, bool) { return "", pings(t, b.addr) })
	if connects(b.addr) {
		t.Error("SSH goes although only ping is allowed")
	}
	tcp := b.rule(t, gate, "tcp", 22)
	b.reachable(t, true, "with rules")
	b.works(t, "ping -c 2 -W 5 "+a.addr)
	for _, r := range []string{icmp, tcp} {
		apart.Must(t, b.demo, "DELETE", "network", "/security-group-rules/"+r, nil, nil)
	}
	b.reachable(t, false, "after the rules went")
	a.works(t, "ping -c 2 -W 5 "+b.addr)
	// The group itself: the server leaves it and comes back, by the compute API.
	b.rule(t, gate, "icmp", 0)
	b.rule(t, gate, "tcp", 22)
	b.reachable(t, true, "with rules again")
	b.act(t, "removeSecurityGroup", map[string]any{"name": "gate"}, "")
	b.reachable(t, false, "outside the group")
	b.act(t, "addSecurityGroup", map[string]any{"name": "gate"}, "")
	b.reachable(t, true, "in the group")
}

// toTheOutside: what is beyond the host answers, because guests go there under the host's address; and names of servers are known.
func toTheOutside(t *testing.T, g *guest) {
	g.works(t, "ping -c 2 -W 5 "+worldOutside)
	if out := g.run(t, "nslookup beta.openstacklocal 169.254.169.254"); !strings.Contains(out, "198.18.64.") {
		t.Errorf("the name server does not know beta: %s", out)
	}
}

// spoofing: a guest that takes another address, or another MAC, loses the network until it takes its own again.
func spoofing(t *testing.T, a, b *guest) {
	gateway := a.run(t, "ip route | awk '$1 == \"default\" {print $3}'")
	if gateway == "" {
		gateway = "198.18.64.1"
	}
	// What must go is tried until it goes: a ping may be lost on a busy machine. What must not go has three pings to show that it does.
	b.run(t, fmt.Sprintf(`rm -f /root/spoof.out; cat > /root/spoof <<'X'
nic=$(ip -4 -o addr show scope global | awk '{print $2; exit}')
mac=$(cat /sys/class/net/$nic/address)
sleep 1
flush() { ip neigh flush dev $nic >/dev/null 2>&1; }
goes() { for i in $(seq 60); do flush; ping -c 1 -W 5 %[1]s >/dev/null 2>&1 && { echo $1 yes; return; }; done; echo $1 no; }
not() { flush; ping -c 3 -W 3 %[1]s >/dev/null 2>&1 && echo $1 yes || echo $1 no; }
{
goes own
ip addr flush dev $nic; ip addr add 198.18.64.201/24 dev $nic; not address
ip addr flush dev $nic; ip addr add %[2]s/24 dev $nic; goes back
ip link set $nic down; ip link set $nic address 02:00:00:00:00:01; ip link set $nic up; not mac
ip link set $nic down; ip link set $nic address $mac; ip link set $nic up; goes end
} > /root/spoof.new 2>&1
mv /root/spoof.new /root/spoof.out
X
sh /root/spoof >/dev/null 2>&1 </dev/null &`, gateway, b.addr))
	b.until(t, "cat /root/spoof.out", "own yes\naddress no\nback yes\nmac no\nend yes")
}

func consoleLog(t *testing.T, g *guest) {
	log := g.consoleLog(t)
	for _, want := range []string{"guest: metadata service uuid " + g.id, "user data ended with 0", "guest: ready"} {
		if !strings.Contains(log, want) {
			t.Errorf("the console log lacks %q:\n%s", want, log)
		}
	}
	var out struct{ Output string }
	apart.Must(t, g.demo, "POST", "compute", "/servers/"+g.id+"/action", map[string]any{"os-getConsoleOutput": map[string]any{"length": 2}}, &out)
	if n := strings.Count(strings.TrimRight(out.Output, "\n"), "\n"); n > 1 {
		t.Errorf("two lines were asked for, there are %d: %q", n+1, out.Output)
	}
}
