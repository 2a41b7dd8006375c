package definition

import "testing"

// TestDevicesElsewhere: a guest that moves while it runs gets the devices that it holds at the destination.
func TestDevicesElsewhere(t *testing.T) {
	dev := func(bus, function string) string {
		return "<hostdev mode='subsystem' type='pci' managed='yes'>\n<driver name='vfio'/>\n<source>\n<address domain='0x0000' bus='0x" + bus + "' slot='0x00' function='0x" + function +
			"'/>\n</source>\n<address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>\n</hostdev>"
	}
	got := RewritePlace("<devices>"+dev("3b", "0")+dev("3c", "1")+"</devices>", map[string]string{targetDevices: "0000:5e:00.2,0000:5f:00.3"})
	if want := "<devices>" + dev("5e", "2") + dev("5f", "3") + "</devices>"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
