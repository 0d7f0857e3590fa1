import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.util.JsonFormat;
import io.grpc.CallOptions;
import io.grpc.MethodDescriptor;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Scanner;
import java.util.concurrent.TimeUnit;

/** Calls DeciderService with grpc-java: a line "Method {message}" comes in, the reply or "!problem" goes out. */
class GrpcDrive {
    public static void main(String[] given) throws Exception {
        var host = given[0].split(":");
        var channel = NettyChannelBuilder.forAddress(host[0], Integer.parseInt(host[1])).usePlaintext().build();
        var service = service(Path.of(given[1]));
        for (var lines = new Scanner(System.in); lines.hasNextLine(); ) {
            var line = lines.nextLine().split(" ", 2);
            var method = service.findMethodByName(line[0]);
            var request = DynamicMessage.newBuilder(method.getInputType());
            JsonFormat.parser().merge(line[1], request);
            var descriptor = MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
                .setType(MethodDescriptor.MethodType.UNARY)
                .setFullMethodName(service.getFullName() + "/" + line[0])
                .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
                .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
                .build();
            try {
                var deadline = CallOptions.DEFAULT.withDeadlineAfter(2, TimeUnit.SECONDS);
                var reply = ClientCalls.blockingUnaryCall(channel, descriptor, deadline, request.build());
                System.out.println(JsonFormat.printer().omittingInsignificantWhitespace().print(reply));
            } catch (Exception problem) {
                System.out.println("!" + problem);
            }
        }
    }

    /** From what protoc's --descriptor_set_out has written. */
    static ServiceDescriptor service(Path file) throws Exception {
        var known = new HashMap<String, FileDescriptor>();
        for (var one : FileDescriptorSet.parseFrom(Files.readAllBytes(file)).getFileList()) {
            var imports = one.getDependencyList().stream().map(known::get).toArray(FileDescriptor[]::new);
            known.put(one.getName(), FileDescriptor.buildFrom(one, imports));
        }
        return known.get("decider/v1/decider_service.proto").findServiceByName("DeciderService");
    }
}
