import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own client as the other side of our tests.
 *
 *   partitions N              reads keys from standard input, one a line, prints the partition of each of N
 *   consume BROKERS TOPIC N   prints N records: partition, offset, key, value, headers; bytes in hex, null as "-"
 *   group BROKERS TOPIC N GROUP   the same as a member of a group that goes on where it stands, and commits the N
 *   write BROKERS             does what standard input says, one step a line, words separated by tabs:
 *                             open ID|-, begin, commit, abort, send TOPIC PARTITION MILLIS KEY VALUE; "-" is null.
 *                             A transaction that is not ended stays open.
 */
public class Interop {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("write")) {
            write(args[1]);
            return;
        }
        if (args[0].equals("partitions")) {
            int n = Integer.parseInt(args[1]);
            StringBuilder out = new StringBuilder();
            for (Scanner in = new Scanner(System.in, StandardCharsets.UTF_8); in.hasNextLine(); ) {
                byte[] key = in.nextLine().getBytes(StandardCharsets.UTF_8);
                out.append(BuiltInPartitioner.partitionForKey(key, n)).append('\n');
            }
            System.out.print(out);
            return;
        }
        Properties p = new Properties();
        p.put("bootstrap.servers", args[1]);
        p.put("group.id", args.length > 4 ? args[4] : "java-" + UUID.randomUUID());
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.put("isolation.level", "read_committed");
        if (args[0].equals("group")) {
            p.put("max.poll.records", "1"); // not one record more than asked for
        }
        int want = Integer.parseInt(args[3]);
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        try (var c = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            c.subscribe(List.of(args[2]));
            for (int got = 0; got < want; ) {
                if (System.nanoTime() > deadline) {
                    System.err.println("got " + got + " of " + want + " records within a minute");
                    System.exit(1);
                }
                for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                    got++;
                    StringBuilder line = new StringBuilder();
                    line.append(r.partition()).append(' ').append(r.offset()).append(' ').append(hex(r.key())).append(' ').append(hex(r.value()));
                    for (Header h : r.headers()) {
                        line.append(' ').append(h.key()).append('=').append(hex(h.value()));
                    }
                    System.out.println(line);
                }
            }
            if (args[0].equals("group")) {
                c.commitSync();
            }
        }
    }

    static void write(String brokers) throws Exception {
        KafkaProducer<byte[], byte[]> p = null;
        for (Scanner in = new Scanner(System.in, StandardCharsets.UTF_8); in.hasNextLine(); ) {
            String[] step = in.nextLine().split("\t");
            switch (step[0]) {
                case "open" -> {
                    Properties c = new Properties();
                    c.put("bootstrap.servers", brokers);
                    if (!step[1].equals("-")) {
                        c.put("transactional.id", step[1]);
                        c.put("transaction.timeout.ms", "600000");
                    }
                    p = new KafkaProducer<>(c, new ByteArraySerializer(), new ByteArraySerializer());
                    if (!step[1].equals("-")) {
                        p.initTransactions();
                    }
                }
                case "begin" -> p.beginTransaction();
                case "commit" -> p.commitTransaction();
                case "abort" -> p.abortTransaction();
                case "send" -> {
                    var r = new ProducerRecord<>(step[1], Integer.valueOf(step[2]), Long.valueOf(step[3]), text(step[4]), text(step[5]));
                    r.headers().add("content-type", text("application/json"));
                    p.send(r).get();
                }
                default -> throw new IllegalArgumentException(step[0]);
            }
        }
        Runtime.getRuntime().halt(0);
    }

    static byte[] text(String s) {
        return s.equals("-") ? null : s.getBytes(StandardCharsets.UTF_8);
    }

    static String hex(byte[] b) {
        return b == null ? "-" : HexFormat.of().formatHex(b);
    }
}
