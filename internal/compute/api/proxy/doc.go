// Package proxy holds the handlers of the routes with which old versions of the compute API speak for the image and network services:
// images, networks, floating IPs, security groups. They end at microversions 2.35 and 2.38. What is asked of the network service goes
// through its REST API with the caller's own token. The list of a server's security groups, which has not ended, is here too.
package proxy
