import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Scanner;

/** Calls DeciderService with nothing but the JDK: a line "Method {message}" comes in, the reply or "!problem" goes out. */
class Drive {
    public static void main(String[] given) {
        var client = HttpClient.newHttpClient();
        for (var lines = new Scanner(System.in); lines.hasNextLine(); ) {
            var line = lines.nextLine().split(" ", 2);
            var request = HttpRequest.newBuilder(URI.create(given[0] + "/decider.v1.DeciderService/" + line[0]))
                .header("content-type", "application/json")
                .timeout(Duration.ofSeconds(2))
                .POST(HttpRequest.BodyPublishers.ofString(line[1]))
                .build();
            try {
                var reply = client.send(request, HttpResponse.BodyHandlers.ofString());
                System.out.println((reply.statusCode() == 200 ? "" : "!") + reply.body());
            } catch (Exception problem) {
                System.out.println("!" + problem);
            }
        }
    }
}
