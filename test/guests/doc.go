// Package guests is the suite of real guests: it starts the program with the libvirt driver and boots small machines on QEMU, then looks at them as their
// owners do, over the API, SSH, the consoles and a browser, and as their neighbours do, over the network.
//
// It runs when KILONOVA_GUESTS=1, as root, with libvirt, QEMU and the openssh client installed; otherwise it says why not. Everything it starts lives in
// namespaces of its own for processes, mounts and the network, so nothing of it reaches the machine's network and nothing outlives it, whatever happens.
package guests
