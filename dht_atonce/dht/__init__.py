"""The DHT: Kademlia over sealed datagrams, holding signed records. Floor 3."""
